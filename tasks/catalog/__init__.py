"""What a store holds in SKNet's terms: runs, production, integrity, comparison. No Prefect."""
