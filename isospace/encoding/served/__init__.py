"""Served encoders: models behind an HTTP API, as a client of its own that knows neither stores nor runs."""
