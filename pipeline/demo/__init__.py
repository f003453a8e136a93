"""The demo's data: support tickets written for this project, labelled by technical issue and urgency."""
