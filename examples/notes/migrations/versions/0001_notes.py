"""Notes, and the words that they are found by."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "note",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_table(
        "word",
        sa.Column("note_id", sa.Integer, primary_key=True),
        sa.Column("word", sa.Text, primary_key=True),
    )
    op.create_index("word_by_word", "word", ["word"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("word")
    op.drop_table("note")
