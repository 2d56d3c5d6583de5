"""What may be believed, and what may be written. Pure: rows in, a verdict out."""
