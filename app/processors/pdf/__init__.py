"""Makes PDFs of the pages of others."""
