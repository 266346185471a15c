#!/usr/bin/perl

# mod_pgpool_query: the HTTP status of a failed statement, by SQLSTATE.

use PgPoolTest;
use Endpoint;

my $pg = postgres;
query($pg, $_) for 'CREATE TABLE parent (id int PRIMARY KEY)', 'INSERT INTO parent VALUES (1)', 'CREATE ROLE nobody',
    'CREATE TABLE child (id int PRIMARY KEY REFERENCES parent, n int NOT NULL CHECK (n > 0), r int4range, EXCLUDE USING gist (r WITH &&))',
    q{INSERT INTO child VALUES (1, 1, '[1,5)')}, 'CREATE SEQUENCE calls',
    q{CREATE FUNCTION fail(code text) RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN RAISE 'secret words' USING ERRCODE = code, DETAIL = 'secret detail', HINT = 'secret hint'; END $$};

my @rules = ('PgPoolQueryStatus 23505 422', 'PgPoolQueryStatus 23* 400', 'PgPoolQueryStatus 22*** 418',
    'PgPoolQueryStatus P0001 500', 'PgPoolQueryStatus PT4* 409', 'PgPoolQueryStatus P* 503', 'PgPoolQueryStatus NONE 410');
my $fail = 'SELECT fail($1)';
my $insert = 'INSERT INTO child VALUES ($1::int, $2::int, $3::int4range) RETURNING id';
my @insert = ($insert, map { "%{arg:$_}" } qw(id n r));

my $httpd = httpd(<<"CONF", modules => [qw(pgpool pgpool_query)]);
PgPoolConninfo "@{[conninfo($pg)]}"
PgPoolMin 1
PgPoolMax 1
@{[section('/insert', 'SetHandler pgpool-query', pgpool_query(@insert))]}
@{[endpoint('/fail', $fail, '%{arg:code}')]}
@{[section('/ruled', 'SetHandler pgpool-query', 'PgPoolQueryFormat object', @rules, pgpool_query($fail, '%{arg:code}'))]}
@{[section('/ruled/none', pgpool_query('SELECT 1 AS one WHERE false'))]}
@{[section('/ruled/below', 'PgPoolQueryStatus 23505 402', 'PgPoolQueryStatus none 204')]}
@{[section('/ruled/odd', 'PgPoolQueryStatus none 499', pgpool_query('SELECT 1 AS one WHERE false'))]}
@{[section('/ruled/below/none', pgpool_query('SELECT 1 AS one WHERE false'))]}
@{[endpoint('/read-only', q{SELECT nextval('calls')})]}
<Location /read-only>
  PgPoolSet default_transaction_read_only on
</Location>
@{[endpoint('/denied', 'SELECT * FROM parent')]}
<Location /denied>
  PgPoolSet role nobody
</Location>
@{[endpoint('/slow', 'SELECT pg_sleep(60)')]}
<Location /slow>
  PgPoolSet statement_timeout 50ms
</Location>
@{[endpoint('/text', 'SELECT $1::int AS i', '%{arg:i}')]}
ErrorDocument 409 "there is one already"
CONF

sub gives {
    my ($path, $status, $name, $sqlstate) = @_;
    my $from = $httpd->log_end;
    my $got = $httpd->get($path);
    is $got->{status}, $status, "$name: $status";
    unlike $got->{content}, qr/secret|SQLSTATE|fail\(|PgPool/, '... the body has no details';
    like $httpd->error_log($from), qr/PGP1020: .* SQLSTATE (?:$sqlstate): /, "... the log has the cause" if $sqlstate;
    is !!$got->{headers}{'retry-after'}, !!($status == 503), '... Retry-After';
    return $got;
}

subtest 'errors of PostgreSQL' => sub {
    gives('/text?i=x', 400, 'a value that does not parse', '22P02');
    gives('/text?i=99999999999', 400, 'a value out of range', '22003');
    gives('/insert?id=1&n=1', 409, 'a duplicate', '23505');
    gives('/insert?id=2&n=1', 409, 'a reference to a missing row', '23503');
    gives('/insert?id=1&n=1&r=[4,6)', 409, 'an exclusion', '23505|23P01');
    gives('/insert?id=1', 400, 'a null', '23502');
    gives('/insert?id=1&n=0', 400, 'a check', '23514');
    gives('/denied', 403, 'a refusal', '42501');
    gives('/read-only', 503, 'a write in a read-only transaction', '25006');
    gives('/slow', 504, 'statement_timeout', '57014');
};

# Every SQLSTATE of the documented table, and some that are not in it.
my %status = (
    '22000' => 400, '22P05' => 400, '23502' => 400, '23514' => 400, 'P0001' => 400,
    '23503' => 409, '23505' => 409, '23P01' => 409,
    '42501' => 403, '57014' => 504,
    '40001' => 503, '40P01' => 503, '25006' => 503, '08000' => 503, '08006' => 503, '53000' => 503, '53300' => 503,
    '57P01' => 503, '57P03' => 503,
    '23000' => 500, '23001' => 500, '40002' => 500, '42P01' => 500, '57000' => 500, '57P10' => 500, 'P0002' => 500,
    'XX000' => 500, '21000' => 500, '0A000' => 500,
    'PT400' => 400, 'PT402' => 402, 'PT404' => 404, 'PT503' => 503, 'PT599' => 599,
    'PT399' => 500, 'PT600' => 500, 'PT200' => 500, 'PT000' => 500, 'PT4XX' => 500,
);
subtest 'the table' => sub {
    gives("/fail?code=$_", $status{$_}, $_, $_) for sort keys %status;
};

subtest 'the body is an ErrorDocument' => sub {
    is $httpd->get('/fail?code=23505')->{content}, 'there is one already', 'of httpd';
};

subtest 'PgPoolQueryStatus' => sub {
    my %ruled = ('23505' => 422, '23503' => 400, '23P01' => 400, '22P02' => 418, 'P0001' => 500, 'P0002' => 503,
        'PT404' => 409, 'PT503' => 503, '42501' => 403, '57014' => 504, 'XX000' => 500);
    gives("/ruled?code=$_", $ruled{$_}, $_, $_) for sort keys %ruled;
    gives('/ruled/none', 410, 'no row');
    gives('/ruled/odd', 499, '... a number that httpd does not know');
    gives('/ruled/below?code=23505', 402, '... a section has its own', '23505');
    gives('/ruled/below?code=22P02', 418, '... and its parent\'s', '22P02');
    is $httpd->get('/ruled/below/none')->{status}, 204, '... for no row';
};

$httpd->stop;

subtest 'refused directives' => sub {
    my $condition = qr/PgPoolQueryStatus takes none, an SQLSTATE such as 23505, or its beginning such as 23\*, not/;
    my $status = qr/PgPoolQueryStatus takes a status from 400 to 599 \(or 204 for none\), not/;
    my @refused = (['2350 400', $condition], ['235055 400', $condition], ['23505* 400', $condition], ['* 400', $condition],
        ['23*5 400', $condition], ['23p01 400', $condition], ['nothing 400', $condition],
        ['23505 399', $status], ['23505 600', $status], ['23505 204', $status], ['23505 4oo', $status], ['none 200', $status],
        ['none 4294967700', $status], ['none -1', $status]);
    for (@refused) {
        my ($words, $why) = @$_;
        my ($code, $output) = Httpd->new(modules => [qw(pgpool pgpool_query)],
            conf => section('/x', "PgPoolQueryStatus $words"))->config_test;
        is $code, 1, "PgPoolQueryStatus $words";
        like $output, $why, '... and why';
    }
};

done_testing;
