/**
 * One step of the schema: applied once, in the order of `id`, never edited after it shipped. It only adds, and leaves
 * what an older release reads and writes: pods of both releases work side by side while one replaces the other.
 */
export interface Migration {
  id: number;
  name: string;
  sql: string;
}

/** The schema of the feature store and the step ledger. */
export const migrations: readonly Migration[] = [
  {
    id: 1,
    name: 'features and datasets',
    sql: `
      create table features (
        model text not null,
        sha256 text not null,
        extractor text not null,
        -- Little-endian float32: the photo, then its mirror image.
        vector bytea not null,
        flipped_vector bytea not null,
        statistics jsonb not null,
        created_at timestamptz not null default now(),
        primary key (model, sha256, extractor)
      );
      create table datasets (
        model text not null,
        version text not null,
        ingestion text not null,
        seed bigint not null,
        classes jsonb not null,
        created_at timestamptz not null default now(),
        primary key (model, version)
      );
      create table dataset_images (
        model text not null,
        version text not null,
        sha256 text not null,
        label text not null,
        split text not null check (split in ('train', 'validation', 'test')),
        near_duplicate_group text not null,
        primary key (model, version, sha256),
        foreign key (model, version) references datasets (model, version) on delete cascade
      );
    `,
  },
  {
    id: 2,
    name: 'photos and ingestions',
    sql: `
      create table images (
        model text not null,
        sha256 text not null,
        source text not null,
        label text not null,
        label_source text not null default 'manifest',
        split text,
        size_bytes int not null,
        width int not null,
        height int not null,
        format text not null,
        -- 64 bits as 16 hex digits.
        perceptual_hash text not null,
        -- The smallest sha256 of the group; null until an ingestion has grouped its photos.
        near_duplicate_group text,
        quality_flags text[] not null default '{}',
        created_at timestamptz not null default now(),
        primary key (model, sha256)
      );
      create table ingestions (
        id text primary key,
        model text not null,
        source_kind text not null,
        source_uri text not null,
        created_at timestamptz not null default now(),
        finished_at timestamptz,
        counts jsonb
      );
      create table ingestion_images (
        ingestion text not null,
        source text not null,
        model text not null,
        sha256 text not null,
        label text not null,
        primary key (ingestion, source)
      );
      create index ingestion_images_by_photo on ingestion_images (model, sha256);
      create table rejections (
        ingestion text not null,
        source text not null,
        code text not null,
        reason text not null,
        primary key (ingestion, source)
      );
    `,
  },
  {
    id: 3,
    name: 'step ledger',
    sql: `
      create table steps (
        id text primary key,
        function text not null,
        source text not null,
        event_id text not null,
        event json not null,
        event_digest text not null,
        status text not null check (status in ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
        -- The fencing token: every write of a worker names the attempt it works on.
        attempt int not null,
        final boolean not null default false,
        crashes int not null default 0,
        lease_owner text,
        lease_until timestamptz,
        progress json,
        result json,
        problem json,
        created_at timestamptz not null default now(),
        started_at timestamptz,
        updated_at timestamptz not null default now(),
        finished_at timestamptz,
        unique (function, source, event_id)
      );
      create index steps_unfinished on steps (function, created_at) where finished_at is null;
      create index steps_by_finish on steps (finished_at);
      create index steps_by_change on steps (updated_at);
    `,
  },
  {
    id: 4,
    name: 'outbox of notices',
    sql: `
      create table outbox (
        -- The order they were written in.
        position bigint generated always as identity primary key,
        -- The notice's own id: derived from function, input event and ordinal.
        id text not null unique,
        function text not null,
        run text not null,
        event json not null,
        tries int not null default 0,
        -- In the future while somebody tries, and between two tries.
        next_try_at timestamptz not null default now(),
        -- Why the sink refused it for good; such notices are kept to be looked at.
        refusal text,
        created_at timestamptz not null default now()
      );
      create index outbox_due on outbox (function, next_try_at) where refusal is null;
      create index outbox_by_age on outbox (created_at);
    `,
  },
  {
    id: 6,
    name: 'prediction log',
    sql: `
      create table predictions (
        id text primary key,
        made_at timestamptz not null,
        stored_at timestamptz not null default now(),
        model text not null,
        -- Null when no model was there to answer.
        version text,
        revision text,
        outcome text not null check (outcome in ('answered', 'refused', 'failed')),
        code text,
        label text,
        scores jsonb not null,
        latency_ms real not null,
        -- How many predictions the row stands for.
        weight real not null,
        input jsonb not null,
        embedding_digest text,
        client_hash text,
        trace_id text
      );
      create index predictions_by_version on predictions (model, version, made_at);
      create index predictions_by_time on predictions (made_at);
    `,
  },
  {
    id: 7,
    name: 'dead letters',
    sql: `
      create table dead_letters (
        -- Derived from destination, source and event id: the same letter again is the same row.
        id text primary key,
        event json not null,
        -- Who did not take it.
        destination text not null,
        -- HTTP status of the last try, and what was answered.
        status int,
        cause text not null,
        occurrences int not null default 1,
        replays int not null default 0,
        first_at timestamptz not null default now(),
        last_at timestamptz not null default now(),
        replayed_at timestamptz
      );
      create index dead_letters_by_time on dead_letters (last_at);
    `,
  },
  {
    id: 8,
    name: 'bursts of photos',
    sql: `
      create table photo_bursts (
        model text not null,
        source_uri text not null,
        -- Names the burst; the next one of the same source gets another number.
        burst bigint generated always as identity,
        photos bigint not null,
        first_at timestamptz not null default now(),
        last_at timestamptz not null default now(),
        primary key (model, source_uri)
      );
    `,
  },
  {
    id: 9,
    name: 'vectors as they are, and the index of groups',
    sql: `
      -- Trying to compress numbers that look like noise took half of the time of an insert.
      alter table features alter vector set storage external, alter flipped_vector set storage external;
      -- A snapshot asks of each photo what splits its group was given before.
      create index images_by_group on images (model, (coalesce(near_duplicate_group, sha256)));
    `,
  },
  {
    id: 10,
    name: 'deployments',
    sql: `
      create table deployments (
        -- Derived from the event: a repeat of it goes on with the same row.
        id text primary key,
        model text not null,
        version text not null,
        kind text not null check (kind in ('deploy', 'rollback')),
        -- The version and the revision that carried the traffic when it began.
        previous text,
        previous_revision text,
        revision text,
        phase text not null,
        stage int not null default 0,
        phase_since timestamptz not null default now(),
        policy json not null,
        reason text,
        evidence json,
        attempts int not null default 0,
        decisions json not null default '[]',
        created_at timestamptz not null default now(),
        updated_at timestamptz not null default now(),
        finished_at timestamptz
      );
      create index deployments_by_model on deployments (model, created_at);
      create table deployment_leases (
        model text primary key,
        deployment text not null,
        -- The fencing token: every write of a deployment names the one it holds.
        token bigint not null,
        until timestamptz not null
      );
      create table deployment_samples (
        deployment text not null references deployments (id) on delete cascade,
        stage int not null,
        version text not null,
        ok boolean not null,
        latency_ms double precision not null,
        taken_at timestamptz not null default now()
      );
      create index deployment_samples_by_stage on deployment_samples (deployment, stage);
    `,
  },
  {
    id: 11,
    name: 'sketches of predictions',
    sql: `
      alter table predictions
        add column schema_version int not null default 1,
        -- Numbers that stand for the photo's features, and how they were made; null in records of version 1.
        add column sketch_id text,
        add column sketch real[];
    `,
  },
  {
    id: 12,
    name: 'feedback',
    sql: `
      create table feedback (
        -- Derived from prediction and client: the same once more is the same row.
        id text primary key,
        prediction text not null,
        -- Keyed hash; empty where clients are not told apart.
        client text not null,
        model text not null,
        version text not null,
        -- What the model said, and what it is; null: none of the classes.
        predicted text not null,
        label text,
        -- Of the photo, where its owner agreed that it is kept: facts as in "images".
        sha256 text,
        photo json,
        status text not null default 'waiting' check (status in ('waiting', 'accepted', 'rejected')),
        given_at timestamptz not null default now(),
        reviewed_at timestamptz
      );
      create index feedback_by_status on feedback (status, given_at);
      create index feedback_by_version on feedback (model, version) where status = 'accepted';
      create index feedback_by_photo on feedback (sha256) where sha256 is not null;
    `,
  },
  {
    id: 13,
    name: 'augmented views',
    // What older extractors stored there, of the mirror image, keeps its own extractor's name.
    sql: 'alter table features rename column flipped_vector to augmented_vector;',
  },
  {
    id: 14,
    name: 'checks for drift',
    sql: `
      create table drift_checks (
        model text not null,
        version text not null,
        -- From 1; the key makes a window be tested once, whoever tests it.
        ordinal int not null,
        window_from timestamptz not null,
        window_until timestamptz not null,
        drifted boolean not null,
        report json not null,
        -- What became of an alarm: null where there was none.
        action text check (action in ('retrain', 'wait', 'none')),
        reason text,
        checked_at timestamptz not null default now(),
        decided_at timestamptz,
        primary key (model, version, ordinal)
      );
      create index drift_checks_by_time on drift_checks (model, checked_at);
      -- A window is what was stored since the last one, whatever the clocks of the pods say.
      create index predictions_by_storing on predictions (model, version, stored_at);
    `,
  },
  {
    id: 15,
    name: 'sketches as bytes',
    sql: `
      -- Little-endian single-precision numbers, in records from version 3 on; those of version 2 have them as "sketch".
      alter table predictions add column sketch_bytes bytea;
    `,
  },
  {
    id: 16,
    name: 'what waits of a client',
    sql: `
      create index feedback_by_client on feedback (client) where status = 'waiting';
    `,
  },
];
