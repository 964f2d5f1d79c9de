"""Predictions, their truths, what monitoring found, and how far segments were read."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "prediction_event",
        sa.Column("prediction_id", sa.Text, primary_key=True),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("ts", sa.Double, nullable=False),
        sa.Column("entity_key", sa.Text),
        sa.Column("model_name", sa.Text, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("role", sa.Text, primary_key=True),
        sa.Column("schema_hash", sa.Text, nullable=False),
        sa.Column("features", sa.JSON),
        sa.Column("output", sa.JSON),
        sa.Column("score", sa.Double),
        sa.Column("latency_ms", sa.Double, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
    )
    op.create_index("prediction_event_ts", "prediction_event", ["ts"])
    op.create_table(
        "ground_truth",
        sa.Column("prediction_id", sa.Text, primary_key=True),
        sa.Column("revision", sa.Integer, primary_key=True),
        sa.Column("label", sa.JSON, nullable=False),
        sa.Column("observed_at", sa.Double),
        sa.Column("received_at", sa.Double, nullable=False),
        sa.Column("source", sa.Text),
    )
    op.create_table(
        "monitor_check",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("ts", sa.Double, nullable=False),
        sa.Column("model_name", sa.Text, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("score", sa.Double),
        sa.Column("p_adj", sa.Double),
        sa.Column("alarm", sa.Boolean, nullable=False),
    )
    op.create_index("monitor_check_ts", "monitor_check", ["ts"])
    op.create_table(
        "event_segment",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
    )
