#!/usr/bin/perl

# mod_pgpool_query: rows as JSON, parameters, methods, failed statements, and refused directives.

use PgPoolTest;
use IO::Select;
use Encode qw(encode_utf8);
use Endpoint;
use JSON::PP;
use Probe;

my $pg = postgres;
query($pg, 'CREATE TABLE item (id int PRIMARY KEY, name text NOT NULL)');

my @modules = qw(pgpool pgpool_query pgpool_probe);

# Name, SQL of a value, and its JSON to the byte.
my @value = (
    [int      => q{1::int},                    '1'],
    [bigint   => q{9223372036854775807},       '9223372036854775807'],
    [numeric  => q{'-12345678901234567890.123456789012345678900'::numeric},
        '-12345678901234567890.123456789012345678900'],
    [float    => q{0.1::float8},               '0.1'],
    [nan      => q{'NaN'::float8},             '"NaN"'],
    [infinity => q{'-Infinity'::float8},       '"-Infinity"'],
    [true     => q{true},                      'true'],
    [false    => q{1 > 2},                     'false'],
    [null     => q{NULL::int},                 'null'],
    [text     => q{E'snow \u2603, face \U0001F600, "quoted", it''s, back\\\\slash'},
        qq{"snow \xE2\x98\x83, face \xF0\x9F\x98\x80, \\"quoted\\", it's, back\\\\slash"}],
    [control  => q{E'tab\tline\nend\x01'},     '"tab\tline\nend\u0001"'],
    [json     => q{'{"b" : [1, null], "a": 1.50}'::json},  '{"b" : [1, null], "a": 1.50}'],
    [jsonb    => q{'{"b" : [1, null], "a": 1.50}'::jsonb}, '{"a": 1.50, "b": [1, null]}'],
    [array    => q{ARRAY[[1, 2], [3, NULL]]},  '[[1,2],[3,null]]'],
    [texts    => q{ARRAY['a,b', 'c"d']},       '["a,b","c\"d"]'],
    [row      => q{ROW(1, 'x')},               '{"f1":1,"f2":"x"}'],
    [date     => q{date '2024-02-29'},         '"2024-02-29"'],
    [time     => q{timestamptz '2024-02-29 12:00:00.5+02'}, '"2024-02-29T10:00:00.5+00:00"'],
    [interval => q{interval '1 day 2 hours'},  '"1 day 02:00:00"'],
    [bytea    => q{'\x00ff'::bytea},           '"\\\\x00ff"'],
    [uuid     => q{'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid},
        '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"'],
);

# Name, statement, and answer; one of every form that is allowed.
my @form = (
    [none         => 'SELECT 1 AS a WHERE false',                  '[]'],
    [no_columns   => 'SELECT',                                     '[{}]'],
    [same_name    => 'SELECT 1 AS a, 2 AS a',                      '[{"a":1,"a":2}]'],
    [unnamed      => 'SELECT 1',                                   '[{"?column?":1}]'],
    [own_name     => 'SELECT 1 AS pgpool_query',                   '[{"pgpool_query":1}]'],
    [ordered      => 'SELECT i FROM generate_series(1, 3) i ORDER BY i DESC',
        qq([{"i":3}, \n {"i":2}, \n {"i":1}])],
    [values       => q{VALUES (1, 'x')},                           '[{"column1":1,"column2":"x"}]'],
    [with         => 'WITH t AS (SELECT 1 AS a) SELECT a FROM t',  '[{"a":1}]'],
    [recursive    => 'WITH RECURSIVE t(a) AS (VALUES (1) UNION ALL SELECT a + 1 FROM t WHERE a < 9) '
        . 'SELECT max(a) FROM t',                                  '[{"max":9}]'],
    [semicolon    => " SELECT 1 AS a ;\t; ",                       '[{"a":1}]'],
    [comment      => 'SELECT 1 AS a -- the last (',                '[{"a":1}]'],
    [note         => 'SELECT 1 AS a; -- note; the last (',         '[{"a":1}]'],
    [quotes       => q{SELECT $$it's; "x"$$ AS "a ""b"""},          q([{"a \"b\"":"it's; \"x\""}])],
);

my $echo = 'SELECT $1::text AS v';
my @endpoint = (
    (map { endpoint("/value/$_->[0]", "SELECT $_->[1] AS v") } @value),
    (map { endpoint("/form/$_->[0]", $_->[1]) } @form),

    endpoint('/echo',      $echo, '%{HTTP:X-Value}'),
    endpoint('/constant',  $echo, q{it's 100% "text"}),
    endpoint('/several',   'SELECT $2::int + $1::int AS sum, $1 AS one, $3 AS uri',
        '%{HTTP:X-Value}', '40', '%{REQUEST_METHOD} %{REQUEST_URI}'),
    endpoint('/many',      'SELECT ' . join(' || ', map { "\$$_" } 1 .. 100) . ' AS v', map { "<$_>" } 1 .. 100),
    endpoint('/nullable',  q{SELECT nullif($1, '')::int AS v}, '%{HTTP:X-Value}'),
    endpoint('/item/add',  'INSERT INTO item SELECT i, $1 || i FROM generate_series(1, 3) i RETURNING *',
        '%{HTTP:X-Value}'),
    endpoint('/item/edit', q{UPDATE item SET name = upper(name) WHERE id = 2 RETURNING name}),
    endpoint('/item/drop', 'DELETE FROM item WHERE id = 3 RETURNING id'),
    endpoint('/item/gone', 'DELETE FROM item WHERE id = 3 RETURNING id'),
    endpoint('/item/clear', 'DELETE FROM item RETURNING id'),
    endpoint('/big',       q{SELECT i, repeat(chr(97 + i % 26), 4096) AS s FROM generate_series(1, $1::int) i},
        '%{HTTP:X-Rows}'),

    '<Location /early/big>', 'PgPoolProbeEarly "BEGIN"', '</Location>',
    endpoint('/early/big', q{SELECT i, repeat(chr(97 + i % 26), 4096) AS s FROM generate_series(1, $1::int) i},
        '%{HTTP:X-Rows}'),

    endpoint('/bad/column',    'SELECT secret_column FROM item'),
    endpoint('/bad/silent',    'DELETE FROM item'),
    endpoint('/bad/data',      'SELECT 1 / $1::int', '%{HTTP:X-Value}'),
    endpoint('/bad/die',       'SELECT pg_terminate_backend(pg_backend_pid())'),
    endpoint('/bad/unset'),

    endpoint('/tree',          'SELECT $1 AS tree', 'parent'),
    "<Location /tree/same>\n  SetEnvIf Host . seen\n</Location>\n",
    '<Location /tree/own>', pgpool_query('SELECT 1 AS own'), "</Location>\n",
    '<LocationMatch "^/named/(?<id>[0-9]+)$">', "SetHandler pgpool-query",
        pgpool_query('SELECT $1::int AS id', '%{env:MATCH_ID}'), "</LocationMatch>\n",

    endpoint('/missing',       'SELECT $1 AS missing', '%{THE_REQUEST}'),
    'ErrorDocument 404 /missing',
    "<Location /probe>\n  SetHandler pgpool-probe\n</Location>\n",
    '<Directory "${DIR}/htdocs">', 'AllowOverride All', '</Directory>',
);

my $conf = join "\n", 'PgPoolConninfo "' . conninfo($pg, options => q('-cTimeZone=UTC')) . '"',
    'PgPoolMin 1', 'PgPoolMax 1', 'TraceEnable off', 'SendBufferSize 8192',
    'LogLevel pgpool_query:info', @endpoint;
my $httpd = httpd($conf, modules => [@modules, 'setenvif']);

# A request whose headers may have any bytes, which HTTP::Tiny does not send.
sub ask {
    my ($path, %header) = @_;
    return scalar $httpd->begin($path, headers => \%header)->finish;
}

# Test that a request fails with this status, tells the client no details, and logs the cause.
sub fails {
    my ($status, $path, $log, %header) = @_;
    my $from = $httpd->log_end;
    my $got = ask($path, %header);
    is $got->{status}, $status, "$path: $status";
    unlike $got->{content}, qr/SELECT|DELETE|SQLSTATE|secret|pgpool|syntax|\d[0-9A-Z]{4}/, '... the body has no details';
    like $httpd->error_log($from), $log, '... the log has the cause';
    return;
}

subtest 'values' => sub {
    is ask("/value/$_->[0]")->{content}, qq([{"v":$_->[2]}]), $_->[0] for @value;
};

subtest 'forms of statements' => sub {
    is ask("/form/$_->[0]")->{content}, $_->[2], $_->[0] for @form;
};

subtest 'headers' => sub {
    my $got = ask('/value/text');
    is $got->{status}, 200, 'status';
    is $got->{headers}{'content-type'}, 'application/json', 'type';
    is $got->{headers}{'content-length'}, length $got->{content}, 'length in bytes';
};

subtest 'parameters are values' => sub {
    my @text = (
        'plain', q{'; DROP TABLE item; --}, q{$1}, q{') OR true --}, q{\\'; \\x00}, '%{HTTP_HOST}',
        q{"double", 'single', $$dollar$$}, "\xE2\x98\x83 \xF0\x9F\x98\x80", '{"json": [1]}',
    );
    for my $text (@text) {
        my $got = ask('/echo', 'X-Value' => $text);
        is encode_utf8(decode_json($got->{content})->[0]{v}), $text, $text;
    }
    is query($pg, q{SELECT to_regclass('item')}), 'item', 'the table is there';
    is ask('/constant')->{content}, q([{"v":"it's 100% \"text\""}]), 'a constant';
    is ask('/several', 'X-Value' => 2)->{content},
        '[{"sum":42,"one":2,"uri":"GET /several"}]', 'several, in any order';
    is ask('/many')->{content}, '[{"v":"' . join('', map { "<$_>" } 1 .. 100) . '"}]', '... more than 64 words';
    is ask('/named/0012')->{content}, '[{"id":12}]', 'a part of the path';
    is ask('/nullable')->{content}, '[{"v":null}]', 'a header that is not set can be made null';
    is ask('/echo')->{content}, '[{"v":""}]', '... and is empty otherwise';
};

subtest 'statements that write' => sub {
    my $got = $httpd->post('/item/add', 'x' x 100_000, { headers => { 'X-Value' => 'item' } });
    is $got->{status}, 200, 'INSERT by POST, the body is ignored';
    is $got->{content}, qq([{"id":1,"name":"item1"}, \n {"id":2,"name":"item2"}, \n {"id":3,"name":"item3"}]),
        '... answers the rows of RETURNING';
    is $httpd->post('/item/edit', '')->{content}, '[{"name":"ITEM2"}]', 'UPDATE';
    is $httpd->post('/item/drop', '')->{content}, '[{"id":3}]', 'DELETE';
    is $httpd->post('/item/gone', '')->{content}, '[]', '... of nothing';
    is query($pg, 'SELECT * FROM item ORDER BY id'), "1|item1\n2|ITEM2", 'all is committed';
};

subtest 'methods' => sub {
    my $get = ask('/value/text');
    my $head = $httpd->begin('/value/text', method => 'HEAD')->finish;
    is $head->{status}, 200, 'HEAD';
    is $head->{content}, '', '... has no body';
    is $head->{headers}{"content-$_"}, $get->{headers}{"content-$_"}, "... but GET's $_" for qw(length type);
    my $many = query($pg, 'SELECT count(*) FROM item');
    my $got = $httpd->begin('/item/clear', method => 'HEAD')->finish;
    is $got->{status}, 405, 'HEAD of a statement that writes';
    is allowed($got), 'OPTIONS POST', '... has to be a POST';
    is query($pg, 'SELECT count(*) FROM item'), $many, '... and writes nothing';
    is $httpd->begin('/value/text', method => 'HEAD')->finish->{status}, 200, '... and the next request is served';
    for my $method (qw(PUT DELETE PATCH)) {
        my $got = $httpd->request($method => '/item/drop');
        is $got->{status}, 405, "$method: 405";
        is allowed($got), 'GET HEAD OPTIONS POST', '... with the allowed methods';
    }
};

subtest 'failures' => sub {
    my $said = qr/PGP1020: pool default: backend \d+: the server refused the statement:/;
    my $place = qr{; the statement: /\* \S+httpd\.conf:\d+ \*/ WITH};
    fails(500, '/bad/column', qr/$said SQLSTATE 42703: column "secret_column" does not exist$place/);
    fails(500, '/bad/silent', qr/$said SQLSTATE 0A000: .*does not have a RETURNING clause$place/);
    fails(400, '/bad/data',   qr/$said SQLSTATE 22012: division by zero$place/, 'X-Value' => 0);
    fails(400, '/bad/data',   qr/$said SQLSTATE 22P02: /, 'X-Value' => '1; DROP TABLE item');
    fails(400, '/bad/data',   qr/PGP2004: PgPoolQuery at \S+httpd\.conf:\d+: \$1: its bytes are not UTF-8/,
        'X-Value' => "\xFF");
    fails(500, '/bad/unset',  qr{PGP2001: no PgPoolQuery for /bad/unset});
    is query($pg, 'SELECT count(*) FROM item'), 2, 'nothing was written';
};

subtest 'a connection that dies under the statement' => sub {
    my $from = $httpd->log_end;
    my $got = ask('/bad/die');
    is $got->{status}, 503, 'status';
    unlike $got->{content}, qr/terminat/, '... the body has no details';
    like $httpd->error_log($from),
        qr/PGP1012: pool default: backend \d+, pinned to this request, is gone: .*terminating connection due to/,
        '... the log has the cause';
    is ask('/value/int')->{status}, 200, 'the next request has another';
};

# PgPoolMax is 1: if a request keeps the connection, the next one fails.
subtest 'large bodies' => sub {
    my $got = ask('/big', 'X-Rows' => 1_024);
    cmp_ok length $got->{content}, '>', 4 << 20, '4 MB';
    is $got->{headers}{'content-length'}, length $got->{content}, '... have their length';
    is_deeply decode_json($got->{content}),
        [map { { i => $_, s => chr(97 + $_ % 26) x 4096 } } 1 .. 1_024], '... and are whole';

    my $slow = $httpd->begin('/big', rcvbuf => 4096, headers => { 'X-Rows' => 1_024 });
    ok(IO::Select->new($slow->{socket})->can_read(60), 'a reader gets the first of 4 MB');
    is ask('/value/int')->{status}, 200, '... and holds no connection while it reads on';
    my $all = $slow->finish;
    is length $all->{content}, $all->{headers}{'content-length'}, '... until it has read all';
};

subtest 'sections' => sub {
    is ask('/tree')->{content},      '[{"tree":"parent"}]', 'a section';
    is ask('/tree/same')->{content}, '[{"tree":"parent"}]', '... below without its own';
    is ask('/tree/own')->{content},  '[{"own":1}]',         '... below with its own';
};

subtest 'inside other requests' => sub {
    my $got = ask('/nowhere');
    is $got->{status}, 404, 'as ErrorDocument: the status stays';
    is $got->{content}, '[{"missing":"GET /nowhere HTTP/1.0"}]', '... with the rows';

    like ask('/probe?acquire&redirect=/value/int')->{content}, qr/^\[\{"v":1\}\]/m, 'after an internal redirect';

    my $text = ask('/probe?acquire&sql=BEGIN&subreq=/value/int&again&state')->{content};
    like $text, qr/\[\{"v":1\}\]subreq=0\n/, 'as a subrequest';
    like $text, qr/again=0\nsame=1\n.*tx=INTRANS\n/s, '... it leaves the connection to the parent';
};

subtest 'the handler returns only a connection that it has acquired itself' => sub {
    query($pg, 'CREATE TABLE kept (t text)');
    ask(probe_at('acquire', 'sql=BEGIN', q(sql=INSERT INTO kept VALUES ('kept')), 'through=/value/int', 'sql=COMMIT'));
    is query($pg, 'TABLE kept'), 'kept', 'a handler that has redirected goes on with its transaction';

    # The result is too short for a file: httpd would not wait for a reader of a file.
    my $slow = $httpd->begin('/early/big', rcvbuf => 4096, headers => { 'X-Rows' => 200 });
    ok(IO::Select->new($slow->{socket})->can_read(60), 'an earlier phase of the request has pinned a connection');
    is ask('/value/int')->{status}, 503, '... and keeps it while the client reads';
    $slow->finish;
};

subtest 'not in .htaccess' => sub {
    mkdir $httpd->dir . '/htdocs/sub';
    $httpd->put_file('sub/.htaccess', pgpool_query('SELECT 1'));
    my $from = $httpd->log_end;
    is ask('/sub/any')->{status}, 500, 'status';
    like $httpd->error_log($from), qr/PgPoolQuery not allowed here/, '... and the log says why';
};

subtest 'no server' => sub {
    $pg->stop;
    my $got = ask('/value/int');
    is $got->{status}, 503, 'status';
    ok $got->{headers}{'retry-after'}, '... with Retry-After';
    $pg->start;
    ok poll_until { ask('/value/int')->{status} == 200 }, 'it comes back by itself';
};
$httpd->stop;

subtest 'refused directives' => sub {
    my @refused = (
        ['no SQL',           endpoint('/q', ''),               qr/PgPoolQuery: the SQL is empty/],
        ['only terminators', endpoint('/q', ' ; ;'),           qr/PgPoolQuery: the SQL is empty/],
        ['another statement', endpoint('/q', 'SELECT 1; SELECT 2'),
            qr/PgPoolQuery takes one SQL statement; there is something behind its semicolon: SELECT 2$/m],
        ['an open quote',    endpoint('/q', q{SELECT 'it's'}),
            qr/PgPoolQuery takes one SQL statement; a quote or comment is not closed: '$/m],
        ['an open bracket',  endpoint('/q', 'SELECT (1'),
            qr/PgPoolQuery takes one SQL statement; a parenthesis is not closed: \(1$/m],
        ['a closed bracket', endpoint('/q', 'SELECT 1) SELECT 2 --'),
            qr/PgPoolQuery takes one SQL statement; a parenthesis is closed but not opened: \) SELECT 2 --$/m],
        ['no expression',    endpoint('/q', 'SELECT $1, $2', 'only one'),
            qr/PgPoolQuery: the SQL has 2 parameters, but 1 expressions follow it$/m],
        ['an idle one',      endpoint('/q', 'SELECT $1', 'one', 'two'),
            qr/PgPoolQuery: the SQL has 1 parameters, but 2 expressions follow it$/m],
        ['a bad expression', endpoint('/q', 'SELECT $1, $2', 'a', '%{'), qr/PgPoolQuery: cannot parse "%\{" \(\$2\): /],
        ['no section',       pgpool_query('SELECT 1'),         qr/PgPoolQuery not allowed (?:here|in)/],
    );
    for (@refused) {
        my ($name, $text, $message) = @$_;
        my ($code, $output) = Httpd->new(modules => \@modules, conf => $text)->config_test;
        is $code, 1, $name;
        like $output, qr/Syntax error on line \d+ of .*\n$message/, '... with file, line and cause';
    }
    my $text = endpoint('/q', 'SELECT 1');
    my $own = sub { return "<VirtualHost *>\n$_[0]\n</VirtualHost>\n" };
    my @without = (
        ['no pool at all',               $text],
        ['... but one without use',      "<PgPool a>\nPgPoolConninfo host=db\n</PgPool>\n$text"],
        ['... but one of another host',  $own->('PgPoolConninfo host=db') . $own->($text)],
    );
    for (@without) {
        my ($name, $text) = @$_;
        my ($code, $output) = Httpd->new(modules => \@modules, conf => $text)->config_test;
        is $code, 1, $name;
        like $output, qr/\S+httpd\.conf:\d+: there is no pool for this handler: write PgPoolConninfo, or PgPoolUse/,
            '... with file, line and cause';
    }
    my @with = (
        ['a pool of a virtual host',     $own->('PgPoolConninfo host=db') . $own->('') . $text],
        ['... for its own',              $own->("PgPoolConninfo host=db\n$text")],
        ['a pool that a section names',  "<PgPool a>\nPgPoolConninfo host=db\n</PgPool>\n"
            . "<Location />\nPgPoolUse a\n</Location>\n" . $own->($text)],
    );
    is_deeply [Httpd->new(modules => \@modules, conf => $_->[1])->config_test], [0, "Syntax OK\n"], $_->[0] for @with;

    my ($code, $output) = Httpd->new(modules => ['pgpool_query'], conf => endpoint('/q', 'SELECT 1'))->config_test;
    is $code, 1, 'no mod_pgpool';
    like $output, qr/PgPoolQuery needs mod_pgpool/, '... and the complaint says so';
    is_deeply [Httpd->new(modules => ['pgpool_query'])->config_test], [0, "Syntax OK\n"],
        'it may be loaded without mod_pgpool if no directive uses it';
};

done_testing;
