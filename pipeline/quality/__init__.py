"""Whether instructions do their job, measured on labelled records: arrays in, a report out."""
