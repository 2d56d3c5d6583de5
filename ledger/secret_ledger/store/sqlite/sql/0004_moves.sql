-- Moves from one database to another: which generation is built in the target, the id that
-- both sides repeat, and where the other side lies. Of a move that was abandoned the row stays
-- at its source, so that what is left in its target can still be told and cleared.

CREATE TABLE ledger_move (
    generation INTEGER PRIMARY KEY,
    move_id    BLOB    NOT NULL UNIQUE CHECK (length(move_id) = 16),
    place      TEXT    NOT NULL
) STRICT;
