"""One thin Prefect task per stage; the work is done in sknet, kept and run by infra."""
