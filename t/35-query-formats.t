#!/usr/bin/perl

# mod_pgpool_query: the answer in each format, to the byte.  t/30-query.t has more of the format
# array.

use PgPoolTest;
use Endpoint;

my $pg = postgres;
query($pg, 'CREATE TABLE item (id int PRIMARY KEY, name text, image bytea)');
query($pg, q{INSERT INTO item VALUES (1, 'one', '\x00ff0a'), (2, 'two', '\x')});
my %encoding = (latin => 'LATIN1', ascii => 'SQL_ASCII');
query($pg, "CREATE DATABASE $_ TEMPLATE template0 ENCODING '$encoding{$_}' LOCALE 'C'") for sort keys %encoding;

# A row with a value of each kind that a format has to treat in its own way.
my $numeric = '-12345678901234567890.123456789012345678900';
my $kinds = <<"SQL" =~ s/\s+/ /gr;
SELECT 9223372036854775807::bigint AS i, '$numeric'::numeric AS n, 'NaN'::float8 AS nan,
    '-Infinity'::float8 AS inf, true AS t, NULL::text AS nil, '' AS empty, '\\x00ff'::bytea AS b,
    ARRAY['a,b', NULL, 'c"d'] AS a, '{"b" : [1, 1.50]}'::json AS j, 1 AS same, 2 AS same,
    E'tab\\t\\u2603 "q"' AS s, date '2024-02-29' AS d
SQL
my $kinds_json = '{"i":9223372036854775807,"n":' . $numeric . ',"nan":"NaN","inf":"-Infinity","t":true,"nil":null,'
    . '"empty":"","b":"\\\\x00ff","a":["a,b",null,"c\"d"],"j":{"b" : [1, 1.50]},"same":1,"same":2,'
    . qq("s":"tab\\t\xE2\x98\x83 \\"q\\"","d":"2024-02-29"});
my $kinds_csv = "i,n,nan,inf,t,nil,empty,b,a,j,same,same,s,d\r\n"
    . qq(9223372036854775807,$numeric,NaN,-Infinity,t,,"",\\x00ff,"{""a,b"",NULL,""c\\""d""}",)
    . qq("{""b"" : [1, 1.50]}",1,2,"tab\t\xE2\x98\x83 ""q""",2024-02-29\r\n);

my $three = 'SELECT i, chr(96 + i) AS c FROM generate_series(1, 3) i';
my $json_lines = qq(SELECT E'[1,\\r\\n\\n2]'::json AS j, E'a\\nb' AS s);

# Format and type, SQL, body (a number: the status), Content-Type.
my @answer = (
    ['array', $kinds, "[$kinds_json]", 'application/json'],
    ['object', $kinds, $kinds_json, 'application/json'],
    ['lines', $kinds, "$kinds_json\n", 'application/x-ndjson'],
    ['csv', $kinds, $kinds_csv, 'text/csv; charset=utf-8'],
    ['ARRAY', $three, qq([{"i":1,"c":"a"}, \n {"i":2,"c":"b"}, \n {"i":3,"c":"c"}])],
    ['lines', $three, qq({"i":1,"c":"a"}\n{"i":2,"c":"b"}\n{"i":3,"c":"c"}\n)],
    ['lines', $json_lines, qq({"j":[1,   2],"s":"a\\nb"}\n)],
    ['csv', $three, "i,c\r\n1,a\r\n2,b\r\n3,c\r\n"],
    ['csv', q{SELECT E'a\r\nb' AS "x,y", E'c\nd' AS "say ""hi""", ' e ' AS " f"},
        qq("x,y","say ""hi"""," f"\r\n"a\r\nb","c\nd"," e "\r\n) =~ s/" f"/ f/r =~ s/" e "/ e /r],
    ['object', $three, 500],
    ['value', $three, '1', 'text/plain; charset=utf-8'],

    # No row, and no column.
    ['array', 'SELECT 1 AS a WHERE false', '[]'],
    ['lines', 'SELECT 1 AS a WHERE false', ''],
    ['csv', 'SELECT 1 AS a WHERE false', "a\r\n"],
    ['object', 'SELECT 1 AS a WHERE false', 404],
    ['value', 'SELECT 1 AS a WHERE false', 404],
    ['array', 'SELECT', '[{}]'],
    ['object', 'SELECT', '{}'],
    ['lines', 'SELECT', "{}\n"],
    ['csv', 'SELECT', "\r\n\r\n"],
    ['value', 'SELECT', 500],
    ['value', 'SELECT NULL::text', 404],
    ['object', 'SELECT NULL::text AS a', '{"a":null}'],
    ['array', 'SELECT NULL::item', '[{"item":null}]'],

    # Values.
    ['value', q{SELECT name FROM item WHERE id = 1}, 'one'],
    ['value', q{SELECT image FROM item WHERE id = 1}, "\0\xFF\n", 'application/octet-stream'],
    ['value', q{SELECT image FROM item WHERE id = 2}, '', 'application/octet-stream'],
    ['value image/png', q{SELECT image FROM item WHERE id = 1}, "\0\xFF\n", 'image/png'],
    ['value "text/%{arg:kind}"', q{SELECT '<p>' || $1, 1}, '<p>1', 'text/html'],
    ['value ""', q{SELECT ''}, '', 'text/plain; charset=utf-8'],
    ['value application/json', q{SELECT '{"a" : 1}'::json}, '{"a" : 1}', 'application/json'],
    ['value', q{SELECT '{"a" : 1}'::jsonb}, '{"a": 1}'],
    ['value', q{SELECT 1.50}, '1.50'],
    ['value', q{SELECT pgpool_query FROM (VALUES (1)) AS pgpool_query}, '(1)'],
    ['array application/vnd.api+json', 'SELECT 1 AS a', '[{"a":1}]', 'application/vnd.api+json'],
    ['value', q{SELECT decode(repeat('00ff', 1000000), 'hex')}, "\0\xFF" x 1_000_000, 'application/octet-stream'],
    ['value', q{SELECT repeat('x', 3000000)}, 'x' x 3_000_000],
);

my @section = map {
    my ($format, $sql) = @{ $answer[$_] };
    section("/answer/$_", 'SetHandler pgpool-query', "PgPoolQueryFormat $format",
        pgpool_query($sql, $sql =~ /\$1/ ? '%{arg:n}' : ()))
} 0 .. $#answer;

sub in_encoding {
    my ($name) = @_;
    my @format = qw(array object lines csv value);
    return "<PgPool $name>\n  PgPoolConninfo \"" . conninfo($pg) =~ s/dbname='postgres'/dbname=$name/r . "\"\n</PgPool>\n", map {
        section("/$name/$_", "PgPoolUse $name", 'SetHandler pgpool-query', "PgPoolQueryFormat $_",
            pgpool_query("SELECT \$1::text AS \"caf\xC3\xA9\"", '%{arg:x}')),
        section("/$name/bad/$_", "PgPoolUse $name", 'SetHandler pgpool-query', "PgPoolQueryFormat $_",
            pgpool_query(q{SELECT convert_from('\xff', 'SQL_ASCII') AS v}))
    } @format;
}

my $httpd = httpd(<<"CONF", modules => [qw(pgpool pgpool_query)]);
PgPoolConninfo "@{[conninfo($pg)]}"
@section
@{[map { in_encoding($_) } sort keys %encoding]}
@{[section('/below', 'SetHandler pgpool-query', 'PgPoolQueryFormat value text/html', pgpool_query(q{SELECT 'v' AS v}))]}
@{[section('/below/type', 'PgPoolQueryFormat value')]}
@{[section('/below/same', 'PgPoolQueryETag on')]}
@{[section('/drop', 'SetHandler pgpool-query', 'PgPoolQueryFormat object', limit('DELETE', 'DELETE FROM item RETURNING id'))]}
CONF

for my $i (0 .. $#answer) {
    my ($format, $sql, $content, $type) = @{ $answer[$i] };
    subtest "$format: " . substr($sql, 0, 50) => sub {
        my $got = $httpd->get("/answer/$i?n=1&kind=html");
        is $got->{status}, $content =~ /\A[45]\d\d\z/ ? $content : 200, 'status';
        return if $got->{status} != 200;
        ok $got->{content} eq $content, 'body' or diag explain substr($got->{content}, 0, 400), substr($content, 0, 400);
        is $got->{headers}{'content-type'}, $type, 'type' if $type;
        is $got->{headers}{'content-length'}, length $content, 'length';
        # For HEAD httpd drops a length of 0.
        return if !length $content;
        my $head = $httpd->begin("/answer/$i?n=1&kind=html", method => 'HEAD')->finish;
        is $head->{headers}{$_}, $got->{headers}{$_}, "HEAD: $_" for qw(content-type content-length);
    };
}

subtest 'several rows where only one is allowed' => sub {
    my $from = $httpd->log_end;
    is $httpd->request(DELETE => '/drop')->{status}, 500, 'status';
    like $httpd->error_log($from), qr/PGP1020: .* SQLSTATE 21000: /, '... with its cause';
    is query($pg, 'SELECT count(*) FROM item'), 2, '... and no row is deleted';
};

for my $name (sort keys %encoding) {
    subtest "UTF-8 from $encoding{$name}" => sub {
        my $cafe = "caf\xC3\xA9";
        my %expected = (array => qq([{"$cafe":"$cafe"}]), object => qq({"$cafe":"$cafe"}),
            lines => qq({"$cafe":"$cafe"}\n), csv => "$cafe\r\n$cafe\r\n", value => $cafe);
        for my $format (sort keys %expected) {
            is $httpd->get("/$name/$format?x=$cafe")->{content}, $expected{$format}, $format;
            next if $name ne 'ascii';
            isnt $httpd->get("/$name/bad/$format")->{status}, 200, '... and bytes that are not UTF-8 fail';
        }
    };
}

subtest 'sections' => sub {
    is $httpd->get('/below/same')->{headers}{'content-type'}, 'text/html', 'inherit the format';
    is $httpd->get('/below/type')->{headers}{'content-type'}, 'text/plain; charset=utf-8', '... as a whole';
};
$httpd->stop;

subtest 'refused directives' => sub {
    my %refused = (
        'PgPoolQueryFormat xml'       => qr/PgPoolQueryFormat takes array, object, value, lines or csv, not "xml"/,
        'PgPoolQueryFormat value "%{"' => qr/PgPoolQueryFormat: cannot parse "%\{": /,
    );
    for my $directive (sort keys %refused) {
        my ($code, $output) = Httpd->new(modules => [qw(pgpool pgpool_query)], conf => section('/x', $directive))->config_test;
        is $code, 1, $directive;
        like $output, $refused{$directive}, '... and why';
    }
};

done_testing;
