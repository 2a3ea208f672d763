"""What may go wrong with a training, found before it begins."""
