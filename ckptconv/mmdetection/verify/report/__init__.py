"""What a run measured, as JSON, Markdown and one HTML page."""
