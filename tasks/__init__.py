"""The tasks of the flows, one file for each verb. The work is done in sknet and infra."""
