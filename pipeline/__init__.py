"""Refract: records in from Kafka, one instruction-conditioned embedding per task out to Qdrant."""

__version__ = "0.1.0"
