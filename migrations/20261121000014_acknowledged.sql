-- Whoever narrows a rollout is answered when every living replica knows.
alter table replicas add column noted_at timestamptz;

comment on column replicas.noted_at is 'Whatever was committed before this moment, the replica has taken note of; null: of nothing yet.';
