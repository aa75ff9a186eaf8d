"""Files at https://, s3:// and hf:// addresses: fetched once, verified, and kept in the private cache."""
