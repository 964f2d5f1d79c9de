"""From a table to a served model: snapshot, contract, training, bundle and inference service."""
