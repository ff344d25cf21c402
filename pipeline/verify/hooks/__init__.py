"""The hooks that come with failback; see `pipeline.verify.hook` for the contract."""
