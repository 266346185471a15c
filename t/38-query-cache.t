#!/usr/bin/perl

# mod_pgpool_query: ETag, conditional requests, and Cache-Control.

use PgPoolTest;
use Endpoint;
use MIME::Base64 ();

my $pg = postgres;
query($pg, $_) for 'CREATE TABLE item (id int, name text)', q{INSERT INTO item VALUES (1, 'one')};

my $users = "$ENV{TESTDIR}/users";
Httpd::spew($users, 'amy:' . crypt('x', 'ab') . "\n");
my $httpd = httpd(<<"CONF", modules => [qw(pgpool pgpool_query auth_basic authn_file authz_user)]);
PgPoolConninfo "@{[conninfo($pg)]}"
PgPoolMin 1
PgPoolMax 1
@{[endpoint('/item', 'SELECT * FROM item ORDER BY id')]}
@{[section('/item', 'PgPoolQueryETag on')]}
@{[section('/item/off', 'PgPoolQueryETag off')]}
@{[section('/item/csv', 'PgPoolQueryFormat csv')]}
@{[endpoint('/large', 'SELECT repeat($1, 100) AS s FROM generate_series(1, 20000)', '%{arg:x}')]}
@{[section('/large', 'PgPoolQueryETag on')]}
@{[section('/object', 'SetHandler pgpool-query', 'PgPoolQueryFormat object', 'PgPoolQueryETag on',
    pgpool_query('SELECT * FROM item WHERE id = $1::int', '%{arg:id}'))]}
@{[endpoint('/user', 'SELECT 1 AS n')]}
<Location /user>
  AuthType Basic
  AuthName x
  AuthUserFile $users
  Require valid-user
</Location>
@{[section('/private', 'SetHandler pgpool-query', 'PgPoolQueryFormat object', 'PgPoolQueryETag on',
    'PgPoolSet app.user "%{arg:user}"', pgpool_query(q{SELECT current_setting('app.user') AS name WHERE $1 <> ''}, '%{arg:user}'))]}
CONF

sub get { my ($path, %header) = @_; return $httpd->begin($path, headers => \%header)->finish }
sub head { my ($path, %header) = @_; return $httpd->begin($path, method => 'HEAD', headers => \%header)->finish }

subtest 'ETag' => sub {
    my $got = get('/item');
    like $got->{headers}{etag}, qr/^"[0-9a-f]{40}"$/, 'a strong one';
    is get('/item')->{headers}{etag}, $got->{headers}{etag}, '... of the content';
    is head('/item')->{headers}{etag}, $got->{headers}{etag}, '... the same for HEAD';
    isnt get('/item/csv')->{headers}{etag}, $got->{headers}{etag}, '... not for another format';
    ok !get('/item/off')->{headers}{etag}, 'none where it is off';
    ok !$httpd->post('/item', '')->{headers}{etag}, '... nor for POST';
    my $same = '"' . '0' x 40 . '"';
    for my $none_match ($got->{headers}{etag}, "$same, $got->{headers}{etag}", "W/$got->{headers}{etag}", '*') {
        for my $answer (get('/item', 'If-None-Match' => $none_match), head('/item', 'If-None-Match' => $none_match)) {
            is $answer->{status}, 304, "If-None-Match: $none_match";
            is $answer->{content}, '', '... without a body';
            is $answer->{headers}{etag}, $got->{headers}{etag}, '... but with the ETag';
        }
    }
    is get('/item', 'If-None-Match' => $same)->{status}, 200, 'another one';
    is get('/item', 'If-Match' => $same)->{status}, 412, 'If-Match';
    is $httpd->post('/item', '', { headers => { 'If-None-Match' => '*' } })->{status}, 200, 'POST has no condition';
    is get('/object?id=2', 'If-None-Match' => '*')->{status}, 404, '... and an absent row has none';
    query($pg, q{UPDATE item SET name = 'two'});
    my $new = get('/item', 'If-None-Match' => $got->{headers}{etag});
    is $new->{status}, 200, 'changed content';
    isnt $new->{headers}{etag}, $got->{headers}{etag}, '... has another ETag';
};

subtest 'of a result that goes through a file' => sub {
    my ($x, $y) = map { get("/large?x=$_") } qw(x y);
    isnt $x->{headers}{etag}, $y->{headers}{etag}, 'one for each content';
    is get('/large?x=y', 'If-None-Match' => $y->{headers}{etag})->{status}, 304, 'If-None-Match';
    my $part = get('/large?x=x', Range => 'bytes=1000000-1000009', 'If-Range' => $x->{headers}{etag});
    is $part->{status}, 206, 'Range with If-Range';
    is $part->{content}, substr($x->{content}, 1_000_000, 10), '... those bytes';
};

subtest 'Cache-Control' => sub {
    my $private = get('/private?user=alice');
    is $private->{headers}{'cache-control'}, 'private', 'private where PgPoolSet applies';
    is get('/private?user=alice', 'If-None-Match' => $private->{headers}{etag})->{headers}{'cache-control'}, 'private', '... 304';
    is get('/user', Authorization => 'Basic ' . MIME::Base64::encode_base64('amy:x', ''))->{headers}{'cache-control'},
        'private', '... where a user is known';
    is get('/private?user=')->{headers}{'cache-control'}, 'private', '... 404';
    ok !get('/item')->{headers}{'cache-control'}, 'none elsewhere';
};
$httpd->stop;

done_testing;
