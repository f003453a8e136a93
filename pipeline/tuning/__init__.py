"""Trains what makes a model follow instructions: a LoRA adapter that reads them, or a linear map per task."""
