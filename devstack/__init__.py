"""One machine's services: finds or starts private PostGIS, Redis and Label Studio, and supervises our own processes."""
