"""What all pages share: who is let in, how forms are read, how pages and errors are made."""
