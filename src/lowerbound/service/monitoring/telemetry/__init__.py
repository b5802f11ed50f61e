"""One fact row per request: written, kept, rolled up, asked and exported."""
