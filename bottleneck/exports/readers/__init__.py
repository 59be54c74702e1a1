"""The few lines that run each format: the card prints them, and a bare process runs them; nothing here imports them."""
