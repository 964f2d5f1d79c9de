"""Which events a check looked at, how the last look ended, and what was done because of it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables, and let checks name their window."""
    op.create_table(
        "monitor_window",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("ts", sa.Double, nullable=False),
        sa.Column("model_name", sa.Text, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("first_ts", sa.Double),
        sa.Column("last_ts", sa.Double),
        sa.Column("last_id", sa.Text),
        sa.Column("events", sa.Integer, nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("alarm", sa.Boolean, nullable=False),
        sa.Column("confirmed", sa.Boolean, nullable=False),
        sa.Column("detail", sa.JSON),
    )
    op.create_index("monitor_window_ts", "monitor_window", ["ts"])
    op.create_table(
        "monitor_look",
        sa.Column("model_name", sa.Text, primary_key=True),
        sa.Column("model_version", sa.Text, primary_key=True),
        sa.Column("ts", sa.Double, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
    )
    op.create_table(
        "monitor_action",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("ts", sa.Double, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("detail", sa.JSON),
    )
    op.add_column("monitor_check", sa.Column("window", sa.Integer))
    op.add_column("monitor_check", sa.Column("change", sa.Text))
    op.add_column("monitor_check", sa.Column("low", sa.Double))
    op.create_index("monitor_check_window", "monitor_check", ["window"])
    event = ["model_name", "model_version", "role", "ts", "prediction_id"]
    op.create_index("prediction_event_model", "prediction_event", event)
    op.create_index("ground_truth_received", "ground_truth", ["received_at"])
