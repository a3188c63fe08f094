"""Audits: what is in production is measured again and again, and what drifts is named."""
