"""The design of every HTML page: markup, style, tables and charts. It knows text and numbers only."""
