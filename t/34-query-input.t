#!/usr/bin/perl

# mod_pgpool_query: values of the query string and of the body.

use PgPoolTest;
use Endpoint;
use JSON::PP;

my $pg = postgres;

my $said = 'SELECT $1 AS said';
my @form = ('Content-Type' => 'application/x-www-form-urlencoded');
my @json = ('Content-Type' => 'application/json');

sub posted { my ($path, @argument) = @_; return section($path, 'SetHandler pgpool-query', limit('POST GET', @argument)) }

my $has_h2 = Httpd::has_module('http2') && ($ENV{PGPOOL_MPM} // '') ne 'prefork' && qx(curl --version 2>/dev/null) =~ /HTTP2/;
my $httpd = httpd(<<"CONF", modules => [qw(pgpool pgpool_query), $has_h2 ? 'http2' : ()]);
@{[$has_h2 ? 'Protocols h2c http/1.1' : '']}
PgPoolConninfo "@{[conninfo($pg)]}"
PgPoolMin 1
PgPoolMax 1
PgPoolAcquireTimeout 200ms
LogLevel pgpool_query:info
@{[endpoint('/arg',    $said, '%{arg:x}')]}
@{[endpoint('/odd',    $said, '%{ARG:a b=c&d}')]}
@{[endpoint('/two',    $said, '<%{arg:x}|%{arg:y}>')]}
@{[endpoint('/number', 'SELECT $1::int AS said', '%{arg:x}')]}
@{[posted('/form',  'SELECT $1 AS said, $2 AS other', '%{form:x}', '-%{form:y}-')]}
@{[posted('/both',  'SELECT $1 AS said, $2 AS whole', '%{form:x}', '%{REQUEST_BODY}')]}
@{[posted('/json',  q{SELECT $1::jsonb->'b' AS said}, '%{REQUEST_BODY}')]}
@{[posted('/text',  'SELECT length($1) AS said', '%{REQUEST_BODY}')]}
@{[section('/text/small', 'PgPoolQueryBody 10')]}
@{[section('/text/large', 'PgPoolQueryBody 3M')]}
@{[posted('/unused', 'SELECT 1 AS said')]}
@{[section('/unused', 'PgPoolQueryBody 1')]}
@{[posted('/set',   q{SELECT current_setting('app.arg') AS arg, current_setting('app.body') AS body, $1 AS used}, '%{REQUEST_BODY}')]}
@{[posted('/set/unused', q{SELECT current_setting('app.arg') AS arg, current_setting('app.body') AS body})]}
<Location /set>
  PgPoolSet app.arg  "<%{arg:x}>"
  PgPoolSet app.body "<%{REQUEST_BODY}>"
</Location>
@{[endpoint('/if', $said, 'plain')]}
<Location /if>
  <If "%{arg:x} == 'chosen'">
    @{[pgpool_query($said, 'chosen')]}
  </If>
</Location>
CONF

sub said {
    my ($got) = @_;
    return $got->{status} if $got->{status} != 200;
    return decode_json($got->{content})->[0]{said};
}

sub get { my ($path) = @_; return $httpd->begin($path)->finish }

# A POST; a type follows as name and value of its header.
sub post {
    my ($path, $content, @type) = @_;
    return $httpd->begin($path, method => 'POST', content => $content, headers => {@type})->finish;
}

# Test that a request is refused with this status without borrowing a connection, and logs the
# cause.
sub refused {
    my ($status, $log, $name, $ask) = @_;
    my $from = $httpd->log_end;
    my $got = $ask->();
    is $got->{status}, $status, $name;
    unlike $got->{content}, qr/UTF|NUL|PgPool|arg:/, '... the body has no details';
    like $httpd->error_log($from), $log, '... the log has the cause';
    unlike $httpd->error_log($from), qr/PGP1004/, '... no connection is borrowed';
    return;
}

subtest 'the query string' => sub {
    is said(get("/arg?$_->[0]")), $_->[1], $_->[0] for (
        ['x=plain', 'plain'], ['x=a+b%2Bc%20d', 'a b+c d'], ['x=%e2%98%83', "\x{2603}"], ['x=1&x=2', '1'],
        ['y=1&x=2&z=3', '2'], ['%78=encoded', 'encoded'], ['x=a=b', 'a=b'], ['&&x=1&', '1'], ['xx=2&x=1', '1'],
        ["x='; DROP TABLE item; --", 400], ['x=%0a%7f%C2%85', "\n\x7f\x85"]
    );
    is said(get('/odd?a%20b%3Dc%26d=1')), 1, 'a name of odd characters';
    is said(get('/two?x=1&y=2')), '<1|2>', 'several in one expression';
    is said(get('/number?x=42')), 42, 'a number';
    is said(get('/number?x=')), 400, '... is not empty';
};

subtest 'absent and empty' => sub {
    is said(get('/arg')), undef, 'no query string: null';
    is said(get('/arg?')), undef, '... an empty one';
    is said(get('/arg?y=1')), undef, '... another name';
    is said(get('/arg?x=')), '', 'an empty value';
    is said(get('/arg?y&x')), '', '... without a sign';
    is said(get('/two')), '<|>', 'in a longer expression both are empty';
    is said(get('/number')), undef, 'a number';
};

subtest 'a query string that is no text' => sub {
    refused(400, qr/PGP2004: PgPoolQuery at \S+:\d+: \$1: arg:x has a bad escape or a NUL, or is not encoded as UTF-8/,
        $_, sub { get("/arg?$_") })
        for 'x=%', 'x=%4', 'x=%zz', 'x=a%00b', 'x=%00', 'x=%ff', 'x=%c3', 'x=%ed%a0%80', 'x=%c0%80', "x=\xE9";
    refused(400, qr/PGP2004: /, "... in a longer expression", sub { get('/two?y=%ff') });
    is said(get('/arg?y=%zz&x=1&%=2')), '1', 'arguments that no expression uses are not checked';
};

subtest 'a form' => sub {
    is said(post('/form', 'x=a+b%26&y=2', @form)), 'a b&', 'a value';
    is said(post('/form', 'x=1', 'Content-Type' => 'Application/X-WWW-Form-urlencoded; charset=utf-8')), 1, '... by any case';
    is post('/form', 'x=', @form)->{content}, '[{"said":"","other":"--"}]', 'empty';
    is post('/form', 'y=1', @form)->{content}, '[{"said":null,"other":"-1-"}]', 'absent';
    is post('/form', '', @form)->{content}, '[{"said":null,"other":"--"}]', 'an empty form';
    is post('/form', '')->{content}, '[{"said":null,"other":"--"}]', 'no body';
    is get('/form?x=1')->{content}, '[{"said":null,"other":"--"}]', 'GET';
    is said(post('/both', 'x=1&y=2', @form)), 1, 'with the whole';
    my $type = qr{PGP2004: 415: the body is no application/x-www-form-urlencoded};
    refused(415, $type, 'another type', sub { post('/form', '{"x": 1}', @json) });
    refused(415, $type, '... that begins alike', sub { post('/form', 'x=1', 'Content-Type' => "$form[1]2") });
    refused(415, $type, '... none', sub { post('/form', 'x=1') });
    refused(400, qr/PGP2004: .* \$1: form:x has a bad escape/, "form: $_", sub { post('/form', $_, @form) })
        for 'x=%00', 'x=%FF', 'x=%f';
};

subtest 'the body' => sub {
    is said(post('/json', '{"a": 1, "b": [2]}', @json))->[0], 2, 'JSON';
    is said(post('/json', '{"a": ', @json)), 400, '... that is none';
    is said(post('/text', "caf\xC3\xA9\n")), 5, 'text of any type';
    is said(post('/text', '')), 0, 'empty';
    is said(get('/text')), 0, 'GET';
    is said(post('/text', 'x' x 1_048_576)), 1_048_576, 'a megabyte';
    is said(post('/text/large', 'x' x 3_000_000)), 3_000_000, 'more where it may';
    refused(413, qr/PGP2004: 413: the body is longer than PgPoolQueryBody \(1048576 bytes\)/, 'too much',
        sub { post('/text', 'x' x 1_048_577) });
    is said(post('/text/small', 'x' x 10)), 10, 'just enough';
    refused(413, qr/longer than PgPoolQueryBody \(10 bytes\)/, 'one too many', sub { post('/text/small', 'x' x 11) });
    refused(400, qr/PGP2004: 400: the body contains a NUL/, 'a NUL', sub { post('/text', "a\0b") });
    refused(400, qr/PGP2004: 400: the body contains a NUL/, '... in a form', sub { post('/form', "x=a\0b", @form) });
    refused(400, qr/PGP2004: 400: the body is not encoded as UTF-8/, 'LATIN1', sub { post('/text', "caf\xE9") });
    is said(post('/unused', "any \0 \xFF" x 100_000)), 1, 'a body that no expression uses is not checked';
};

# ---- bodies that come slowly, or never

sub chunks { return join '', map { sprintf "%x\r\n%s\r\n", length, $_ } @_ }

sub request_in_parts {
    my ($path, @header) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $httpd->port) or die "connect: $!";
    print {$socket} "POST $path HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", map({ "$_\r\n" } @header), "\r\n";
    return $socket;
}

sub answer_of { my ($socket) = @_; local $/; my $text = <$socket>; return $text // '' }

subtest 'chunks' => sub {
    my $ask = sub {
        my ($path, @chunk) = @_;
        my $socket = request_in_parts($path, 'Transfer-Encoding: chunked', "Content-Type: $form[1]");
        print {$socket} chunks(@chunk), "0\r\n\r\n";
        return answer_of($socket);
    };
    like $ask->('/text', 'a' x 10, "caf\xC3", "\xA9"), qr/^HTTP\S+ 200 .*\[\{"said":14\}\]/s, 'are put together';
    like $ask->('/text', ('x' x 32_768) x 32), qr/"said":1048576/, '... up to a megabyte';
    like $ask->('/text', ('x' x 32_768) x 32, 'x'), qr/^HTTP\S+ 413 /, '... and no more';
    like $ask->('/form', 'x=o', 'ne'), qr/"said":"one"/, 'a form';
    like $ask->('/text'), qr/"said":0/, 'none';
    my $socket = request_in_parts('/text', 'Transfer-Encoding: chunked');
    print {$socket} "zz\r\n";
    like answer_of($socket), qr/^HTTP\S+ 400 /, 'malformed ones';
};

subtest 'a body of HTTP/2, without Content-Length' => sub {
    plan skip_all => 'wants mod_http2 and a curl that speaks it' if !$has_h2;
    my $curl = 'curl --silent --http2-prior-knowledge --request POST --upload-file -';
    is qx(printf 'some text' | $curl @{[$httpd->url('/text')]}), '[{"said":9}]', 'is read';
    is qx(printf 'x=1' | $curl --header 'Content-Type: $form[1]' @{[$httpd->url('/form')]}), '[{"said":"1","other":"--"}]', '... a form';
};

subtest 'a slow body' => sub {
    my $socket = request_in_parts('/text', 'Content-Length: 10');
    print {$socket} 'x' x 5;
    is said(get('/arg?x=1')), 1, 'the request has no connection while its body comes';
    print {$socket} 'x' x 5;
    like answer_of($socket), qr/"said":10/, '... and is answered';
};

subtest 'an aborted body' => sub {
    my $from = $httpd->log_end;
    for my $header ('Content-Length: 10', 'Transfer-Encoding: chunked') {
        my $socket = request_in_parts('/text', $header);
        print {$socket} "5\r\nxxxxx";
        close $socket;
    }
    poll_until { (() = $httpd->error_log($from) =~ /PGP2004: \d+: the body cannot be read to its end/g) == 2 };
    is scalar(() = $httpd->error_log($from) =~ /PGP2004: \d+: the body cannot be read to its end/g), 2, 'ends its request';
    unlike $httpd->error_log($from), qr/PGP1004/, '... and no connection is borrowed';
    is said(get('/arg?x=1')), 1, '... the next one is served';
};

subtest '<If> and PgPoolSet' => sub {
    is said(get('/if?x=chosen')), 'chosen', '<If> chooses a statement';
    is said(get('/if?x=other')), 'plain', '... or does not';
    refused(400, qr/PGP2004: .*: an expression: arg:x has a bad escape/, '... and no statement runs if its expression fails',
        sub { get('/if?x=%ff') });
    is post('/set?x=1', 'two')->{content}, '[{"arg":"<1>","body":"<two>","used":"two"}]', 'PgPoolSet sees what the statement uses';
    is post('/set/unused?x=1', 'two')->{content}, '[{"arg":"<1>","body":"<>"}]', '... and no other body';
    refused(400, qr/PgPoolSet app.arg: arg:x has a bad escape/, '... and refuses an argument that is no text', sub { post('/set?x=%ff', 'two') });
};
$httpd->stop;

subtest 'refused directives' => sub {
    for my $size ('x', '-1', '1.5M', '1T', '1MM', '99999999999999999999', '9999999999G') {
        my ($code, $output) = Httpd->new(modules => [qw(pgpool pgpool_query)],
            conf => section('/x', "PgPoolQueryBody \"$size\""))->config_test;
        is $code, 1, "PgPoolQueryBody $size";
        like $output, qr/PgPoolQueryBody takes a number of bytes, or of K, M or G of them, not "\Q$size\E"/, '... and why';
    }
};

done_testing;
