"""What the tests need of the inside of the packages: the one place that names its modules.

What runs in a process of its own imports it from its module: all of this takes half a second.
"""

from __future__ import annotations

from secret_ledger import errors, opening
from secret_ledger.alembic import include_object
from secret_ledger.boot.boot import BootOptions, boot
from secret_ledger.boot.creation import GENESIS_EPOCH, genesis, upgrade
from secret_ledger.cli import main, secrets
from secret_ledger.cli.app import make_app
from secret_ledger.cli.rollout import Rollout, rollout
from secret_ledger.cli.screen import drawn
from secret_ledger.cli.usage import _ENDING, _OTHER_WORDS
from secret_ledger.config.environment import (
    HOME,
    KEY,
    KEY_ID,
    LEDGER_ID,
    LEDGER_SCHEMA,
    LEDGER_URL,
    MODE,
    PREVIOUS_KEYS,
    Environment,
    keys_from_env,
    mode,
    parse_ledger_id,
    pinned_ledger_id,
    setting,
)
from secret_ledger.config.key_files import DEV_MARK, MAX_FILE_BYTES
from secret_ledger.config.keyring import Keyring
from secret_ledger.config.providers import EnvKeyProvider, LocalKeyProvider
from secret_ledger.config.settings import LEDGER_TARGET_URL
from secret_ledger.errors import (
    InsecureKeyFile,
    InvalidKey,
    InvalidName,
    InvalidValue,
    LedgerError,
    MissingKey,
    NoStableKey,
    SchemaTooNew,
    SecretDestroyed,
    TamperedEvent,
    ValueTooLarge,
)
from secret_ledger.generations import emptying
from secret_ledger.generations.migration import Migrator
from secret_ledger.generations.reseal import read_back
from secret_ledger.model.control import (
    Control,
    check_known,
    fold_control,
    key_metadata,
    upgrade_metadata,
)
from secret_ledger.model.derivation import (
    NAMESPACE,
    default_key_id,
    derive,
    fingerprint,
    key_text,
    parse_key_text,
    root_problem,
)
from secret_ledger.model.events import (
    CONTROL_STREAM,
    NO_HASH,
    Event,
    EventType,
    from_microseconds,
    to_microseconds,
)
from secret_ledger.model.floors import ended_at, floor_facts
from secret_ledger.model.format import (
    _U32,
    context_of,
    event_hash,
    frame,
    hash_of,
    is_purged,
    open_event,
    open_sealed,
    purge,
    seal,
    seal_event,
    sealed_size,
    unframe,
)
from secret_ledger.model.keys import Key, LedgerKey, check_key_id
from secret_ledger.model.metadata import MAX_METADATA, Metadata, encode_metadata, parse_metadata
from secret_ledger.model.names import MAX_NAME_BYTES, normalise_name, normalise_prefix
from secret_ledger.model.refusals import tampered
from secret_ledger.model.rows import CheckedRow, LogHead
from secret_ledger.model.secret import MAX_VALUE, Secret, Values
from secret_ledger.model.versions import base_version, state_of
from secret_ledger.nodes.registry import MAX_SHOWN
from secret_ledger.opening import init_ledger, upgrade_schema
from secret_ledger.readiness import Probe, liveness, probes, readiness
from secret_ledger.rules import gate
from secret_ledger.rules.attestation import Attestation, attest, verdict_on
from secret_ledger.rules.authority import check_control_authority, check_control_seals, read_event
from secret_ledger.rules.decide import Destroy, Put
from secret_ledger.rules.findings import MAX_FINDINGS, Finding, Level, OpenLevel, Progress, Tally
from secret_ledger.rules.node_proof import Announcement, Judge, ProofVerdict, prove
from secret_ledger.rules.read_checks import check_answer
from secret_ledger.rules.row_checks import CheckedPage
from secret_ledger.rules.sealed_counts import RowDigest
from secret_ledger.session.lineage import REMEMBERED, Met
from secret_ledger.session.opened import Identity
from secret_ledger.store import catalogue, reads
from secret_ledger.store.address import connect
from secret_ledger.store.bounds import MAX_GENERATIONS, MAX_KEYS, MAX_SEALED, behind
from secret_ledger.store.connection import Connection, Rows, Statement
from secret_ledger.store.database import Database, Folded, Mode
from secret_ledger.store.driver_errors import is_transient
from secret_ledger.store.grants import grants
from secret_ledger.store.postgresql.catalogue import as_text
from secret_ledger.store.postgresql.database import PostgresqlConnection, PostgresqlDatabase
from secret_ledger.store.postgresql.hosts import SILENCE
from secret_ledger.store.postgresql.names import qualified
from secret_ledger.store.postgresql.url import Dialling, read_url
from secret_ledger.store.read_ahead import ahead
from secret_ledger.store.reads import BULK, PAGE, events_page, head_in_use, read_state, stream_page
from secret_ledger.store.retry import RETRIES, patiently
from secret_ledger.store.schema import FORMAT, OUR_TABLES, SCHEMA_VERSION, apply, read_meta, steps
from secret_ledger.store.sqlite import database
from secret_ledger.store.sqlite.database import READERS, SqliteConnection, SqliteDatabase
from secret_ledger.store.sqlite.race import wal_reset_race
from secret_ledger.store.statements import EVENT_COLUMNS, HEAD_COLUMNS
from secret_ledger.unverified import open_unverified
from secret_ledger.verify.incremental import SAMPLE, keep_proof
from secret_ledger.verify.scan import Scan
from secret_ledger.verify.verify import verify_ledger
from secret_ledger.write import writer
from secret_ledger_projections import checkpoint, pages
from secret_ledger_projections.table import ProjectionTable

__all__ = [
    "BULK",
    "CONTROL_STREAM",
    "DEV_MARK",
    "EVENT_COLUMNS",
    "FORMAT",
    "GENESIS_EPOCH",
    "HEAD_COLUMNS",
    "HOME",
    "KEY",
    "KEY_ID",
    "LEDGER_ID",
    "LEDGER_SCHEMA",
    "LEDGER_TARGET_URL",
    "LEDGER_URL",
    "MAX_FILE_BYTES",
    "MAX_FINDINGS",
    "MAX_GENERATIONS",
    "MAX_KEYS",
    "MAX_METADATA",
    "MAX_NAME_BYTES",
    "MAX_SEALED",
    "MAX_SHOWN",
    "MAX_VALUE",
    "MODE",
    "NAMESPACE",
    "NO_HASH",
    "OUR_TABLES",
    "PAGE",
    "PREVIOUS_KEYS",
    "READERS",
    "REMEMBERED",
    "RETRIES",
    "SAMPLE",
    "SCHEMA_VERSION",
    "SILENCE",
    "_ENDING",
    "_OTHER_WORDS",
    "_U32",
    "Announcement",
    "Attestation",
    "BootOptions",
    "CheckedPage",
    "CheckedRow",
    "Connection",
    "Control",
    "Database",
    "Destroy",
    "Dialling",
    "EnvKeyProvider",
    "Environment",
    "Event",
    "EventType",
    "Finding",
    "Folded",
    "Identity",
    "InsecureKeyFile",
    "InvalidKey",
    "InvalidName",
    "InvalidValue",
    "Judge",
    "Key",
    "Keyring",
    "LedgerError",
    "LedgerKey",
    "Level",
    "LocalKeyProvider",
    "LogHead",
    "Met",
    "Metadata",
    "Migrator",
    "MissingKey",
    "Mode",
    "NoStableKey",
    "OpenLevel",
    "PostgresqlConnection",
    "PostgresqlDatabase",
    "Probe",
    "Progress",
    "ProjectionTable",
    "ProofVerdict",
    "Put",
    "Rollout",
    "RowDigest",
    "Rows",
    "Scan",
    "SchemaTooNew",
    "Secret",
    "SecretDestroyed",
    "SqliteConnection",
    "SqliteDatabase",
    "Statement",
    "Tally",
    "TamperedEvent",
    "ValueTooLarge",
    "Values",
    "ahead",
    "apply",
    "as_text",
    "attest",
    "base_version",
    "behind",
    "boot",
    "catalogue",
    "check_answer",
    "check_control_authority",
    "check_control_seals",
    "check_key_id",
    "check_known",
    "checkpoint",
    "connect",
    "context_of",
    "database",
    "default_key_id",
    "derive",
    "drawn",
    "emptying",
    "encode_metadata",
    "ended_at",
    "errors",
    "event_hash",
    "events_page",
    "fingerprint",
    "floor_facts",
    "fold_control",
    "frame",
    "from_microseconds",
    "gate",
    "genesis",
    "grants",
    "hash_of",
    "head_in_use",
    "include_object",
    "init_ledger",
    "is_purged",
    "is_transient",
    "keep_proof",
    "key_metadata",
    "key_text",
    "keys_from_env",
    "liveness",
    "main",
    "make_app",
    "mode",
    "normalise_name",
    "normalise_prefix",
    "open_event",
    "open_sealed",
    "open_unverified",
    "opening",
    "pages",
    "parse_key_text",
    "parse_ledger_id",
    "parse_metadata",
    "patiently",
    "pinned_ledger_id",
    "probes",
    "prove",
    "purge",
    "qualified",
    "read_back",
    "read_event",
    "read_meta",
    "read_state",
    "read_url",
    "readiness",
    "reads",
    "rollout",
    "root_problem",
    "seal",
    "seal_event",
    "sealed_size",
    "secrets",
    "setting",
    "state_of",
    "steps",
    "stream_page",
    "tampered",
    "to_microseconds",
    "unframe",
    "upgrade",
    "upgrade_metadata",
    "upgrade_schema",
    "verdict_on",
    "verify_ledger",
    "wal_reset_race",
    "writer",
]
