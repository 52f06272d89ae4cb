"""Writing: plan what changes, embed what is new, commit it, and maintain vectors and indexes."""
