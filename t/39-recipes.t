#!/usr/bin/perl

# The recipes of README.md work as they are written, with mod_pgpool_query.

use PgPoolTest;
use Endpoint;

my ($recipes) = Httpd::slurp('README.md') =~ /^### Recipes\n(.*?)^## /ms;
my @recipe = $recipes =~ /^\*\*(?:.+\n)+\n((?: {4}.*\n)+)/mg;
is scalar @recipe, 7, 'the recipes are found';

my @wanted = qw(headers cache cache_disk setenvif);
plan skip_all => "wants mod_$_" for grep { !Httpd::has_module($_) } @wanted;

my $pg = postgres;
query($pg, $_) for 'CREATE DATABASE replica', 'CREATE SEQUENCE calls', 'CREATE TABLE item (id int, owner text)',
    q{INSERT INTO item VALUES (1, 'alice'), (2, 'bob')}, 'ALTER TABLE item ENABLE ROW LEVEL SECURITY',
    'CREATE ROLE web LOGIN NOINHERIT', 'CREATE ROLE shop_reader', 'CREATE ROLE shop_writer', 'GRANT shop_reader, shop_writer TO web',
    'GRANT SELECT ON item TO web, shop_reader, shop_writer', 'GRANT INSERT ON item TO web, shop_writer', 'GRANT USAGE ON calls TO web',
    q{CREATE POLICY own ON item FOR SELECT TO web USING (owner = current_setting('request.jwt.claims', true)::json->>'sub')},
    'CREATE POLICY shop ON item TO shop_reader, shop_writer USING (true)';

my $conninfo = conninfo($pg, user => 'web');
my $replica = $conninfo =~ s/dbname='postgres'/dbname=replica/r;
my $role = q{SELECT current_setting('role') AS role, count(*) AS items FROM item};
my $insert = q{INSERT INTO item VALUES (3, 'carol') RETURNING current_setting('role') AS role};
my $database = 'SELECT current_database() AS db';
my $count = q{SELECT nextval('calls') AS n};

my $conf = join "\n", "PgPoolConninfo \"$conninfo\"", 'PgPoolMin 1', 'PgPoolMax 2',
    'CacheRoot ${DIR}', 'SetEnvIf X-Token (.*) OIDC_id_token_payload=$1',
    section('/shop', 'SetHandler pgpool-query', limit(GET => $role), limit(POST => $insert)),
    section('/shop/sneaky', limit(GET => $insert)),
    endpoint('/reports', 'SELECT pg_sleep($1::int) IS NULL AS slept', '%{arg:seconds}'),
    endpoint('/mine', 'SELECT id FROM item'),
    endpoint('/api', 'SELECT 1 / $1::int AS n', '%{arg:n}'),
    endpoint('/catalogue', $count),
    section('/catalogue/own', 'PgPoolSet app.user "%{HTTP:X-User}"', pgpool_query("$count, current_setting('app.user') AS name")),
    endpoint('/traced', q{SELECT current_setting('application_name') AS name}),
    section('/orders', 'SetHandler pgpool-query', pgpool_query($database)),
    @recipe;
my $httpd = httpd($conf =~ s{host=replica\.example dbname=shop user=web}{$replica}r,
    modules => ['pgpool', 'pgpool_query', @wanted]);

sub ask {
    my ($method, $path, %header) = @_;
    return $httpd->begin($path, method => $method, headers => \%header)->finish;
}

sub says {
    my ($method, $path, $content, $name, %header) = @_;
    my $got = ask($method, $path, %header);
    is $got->{content}, $content, $name or diag $got->{status};
    return $got;
}

subtest 'a role that may only read' => sub {
    says(GET => '/shop', '[{"role":"shop_reader","items":2}]', 'GET reads as the reader');
    says(POST => '/shop', '[{"role":"shop_writer"}]', 'POST writes as the writer');
    isnt ask(GET => '/shop/sneaky')->{status}, 200, 'GET cannot write';
    says(GET => '/shop', '[{"role":"shop_reader","items":3}]', '... and has written nothing');
};

subtest 'a time limit in the server' => sub {
    says(GET => '/reports?seconds=0', '[{"slept":false}]', 'a short query');
    is ask(GET => '/reports?seconds=60')->{status}, 504, '... and a long one';
};

subtest 'the claims of a token' => sub {
    says(GET => '/mine', '[{"id":1}]', 'alice has her rows', 'X-Token' => '{"sub": "alice"}');
    says(GET => '/mine', '[{"id":2}]', 'bob has his', 'X-Token' => '{"sub": "bob"}');
    says(GET => '/mine', '[]', 'another none', 'X-Token' => q({"sub": "' OR true --"}));
};

subtest 'CORS' => sub {
    for my $answer (ask(OPTIONS => '/api', Origin => 'https://app.example', 'Access-Control-Request-Method' => 'POST'),
        ask(GET => '/api?n=1'), ask(GET => '/api?n=0'))
    {
        is $answer->{headers}{'access-control-allow-origin'}, 'https://app.example', "with $answer->{status}";
    }
};

subtest 'a cache in httpd' => sub {
    my $first = ask(GET => '/catalogue');
    is $first->{content}, '[{"n":1}]', 'PostgreSQL answers';
    my $second = ask(GET => '/catalogue');
    is $second->{content}, '[{"n":1}]', '... then the cache';
    is $second->{headers}{etag}, $first->{headers}{etag}, '... with the ETag';
    is ask(GET => '/catalogue', 'If-None-Match' => $first->{headers}{etag})->{status}, 304, '... and answers a conditional request';
    my $alice = says(GET => '/catalogue/own', '[{"n":2,"name":"alice"}]', 'a private answer', 'X-User' => 'alice');
    is $alice->{headers}{'cache-control'}, 'private, max-age=60', '... has Cache-Control: private';
    says(GET => '/catalogue/own', '[{"n":3,"name":"bob"}]', '... and is not kept for another', 'X-User' => 'bob');
};

subtest 'the identifier of a trace' => sub {
    my $trace = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    says(GET => '/traced', qq([{"name":"$trace"}]), 'is application_name', traceparent => $trace);
    says(GET => '/traced', '[{"name":""}]', '... and gone with its request');
};

subtest 'reads from a replica' => sub {
    says(GET => "/orders", q([{"db":"replica"}]), "GET");
    says(POST => '/orders', '[{"db":"postgres"}]', 'POST');
};
$httpd->stop;

done_testing;
