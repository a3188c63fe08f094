"""Encode through OpenAI's Batch API: submit files of requests, wait, fetch vectors; a killed run continues to wait."""
