#!/usr/bin/perl

# mod_pgpool_query: a statement for each method.

use PgPoolTest;
use Endpoint;

my $pg = postgres;
query($pg, 'CREATE TABLE item (id int PRIMARY KEY, name text)');

my $said = 'SELECT $1 AS said';
my $httpd = httpd(<<"CONF", modules => [qw(mime include pgpool pgpool_query)]);
TypesConfig /dev/null
PgPoolConninfo "@{[conninfo($pg)]}"
PgPoolMin 1
PgPoolMax 1
TraceEnable off
@{[section('/item', 'SetHandler pgpool-query',
    limit('GET', 'SELECT * FROM item ORDER BY id'),
    limit('POST PUT', q{INSERT INTO item VALUES ($1::int, 'new') RETURNING id}, '%{arg:id}'),
    limit('DELETE', 'DELETE FROM item WHERE id = $1::int RETURNING id', '%{arg:id}'))]}
@{[section('/item/below', limit('PATCH', $said, 'patched'), pgpool_query($said, 'below'))]}
@{[section('/before', 'SetHandler pgpool-query', limit('POST', $said, 'limited'), pgpool_query($said, 'plain'))]}
@{[section('/behind', 'SetHandler pgpool-query', pgpool_query($said, 'plain'), limit('POST', $said, 'limited'))]}
@{[section('/except', 'SetHandler pgpool-query', pgpool_query($said, 'get'),
    '<LimitExcept GET>', pgpool_query($said, '%{REQUEST_METHOD}'), '</LimitExcept>')]}
@{[section('/post', 'SetHandler pgpool-query', limit('POST', $said, 'posted'))]}
@{[section('/csv', 'SetHandler pgpool-query', 'PgPoolQueryFormat csv', pgpool_query('SELECT * FROM item'))]}
@{[section('/writes', 'SetHandler pgpool-query', pgpool_query(q{INSERT INTO item VALUES (99, 'by GET') RETURNING id}))]}
<Directory "\${DIR}/htdocs">
  Options +Includes
  AddOutputFilter INCLUDES .shtml
</Directory>
@{[section('/own', 'SetHandler pgpool-query', limit('REPORT', $said, 'reported'))]}
CONF

sub ask {
    my ($method, $path) = @_;
    return $httpd->begin($path, method => $method)->finish;
}

sub answers {
    my ($method, $path, $content) = @_;
    my $got = ask($method, $path);
    is $got->{status}, 200, "$method $path";
    is $got->{content}, $content, '... its own statement';
    return;
}

subtest 'one for each' => sub {
    answers(GET    => '/item',      '[]');
    answers(POST   => '/item?id=1', '[{"id":1}]');
    answers(PUT    => '/item?id=2', '[{"id":2}]');
    answers(DELETE => '/item?id=1', '[{"id":1}]');
    answers(GET    => '/item',      '[{"id":2,"name":"new"}]');
    answers(HEAD   => '/item',      '');
};

subtest 'a method without one' => sub {
    my %allowed = (
        '/item'       => 'DELETE GET HEAD OPTIONS POST PUT',
        '/item/below' => 'DELETE GET HEAD OPTIONS PATCH POST PUT',
        '/before'     => 'GET HEAD OPTIONS POST',
        '/post'       => 'OPTIONS POST',
        '/own'        => 'OPTIONS REPORT',
    );
    for my $path (sort keys %allowed) {
        for my $method (qw(BREW MKCOL)) {
            my $got = ask($method, $path);
            is $got->{status}, 405, "$method $path";
            is allowed($got), $allowed{$path}, '... with the allowed methods';
        }
    }
    is ask($_, '/post')->{status}, 405, "$_ of a POST's" for qw(GET HEAD PUT);
    is ask($_, '/own')->{status}, 405, "$_ of another's" for qw(GET POST);
};

subtest 'OPTIONS' => sub {
    my $got = ask(OPTIONS => '/item');
    is $got->{status}, 200, 'status';
    is allowed($got), 'DELETE GET HEAD OPTIONS POST PUT', 'allows';
    is $got->{content}, '', 'no body';
    is ask(OPTIONS => '/except')->{content}, '', '... also with <LimitExcept>';
};

subtest 'the choice of a statement' => sub {
    answers(GET    => '/before', '[{"said":"plain"}]');
    answers(POST   => '/before', '[{"said":"limited"}]');
    answers(POST   => '/behind', '[{"said":"limited"}]');
    answers(GET    => '/except', '[{"said":"get"}]');
    answers($_     => '/except', qq([{"said":"$_"}])) for qw(POST PATCH BREW);
    answers(REPORT => '/own',    '[{"said":"reported"}]');
};

subtest 'below a section' => sub {
    answers(GET    => '/item/below',      '[{"said":"below"}]');
    answers(POST   => '/item/below',      '[{"said":"below"}]');
    answers(PATCH  => '/item/below',      '[{"said":"patched"}]');
    answers(DELETE => '/item/below?id=2', '[{"id":2}]');
};

subtest 'a subrequest of HEAD' => sub {
    $httpd->put_file('page.shtml', '<!--#include virtual="/writes" -->');
    is ask(HEAD => '/page.shtml')->{status}, 200, 'the page is there';
    is query($pg, 'SELECT count(*) FROM item WHERE id = 99'), 0, '... and what it includes writes nothing';
    is ask(GET => '/page.shtml')->{content}, '[{"id":99}]', 'GET';
    is query($pg, 'SELECT count(*) FROM item WHERE id = 99'), 1, '... writes';
};

# The statement was prepared before, on the same connection (PgPoolMax is 1).
subtest 'rows of another shape than before' => sub {
    query($pg, 'TRUNCATE item');
    my $n = 0;
    for my $method (qw(GET HEAD GET)) {
        query($pg, 'ALTER TABLE item ADD COLUMN more' . ++$n . ' int DEFAULT 7');
        is ask($method => $_)->{status}, 200, "$method $_" for qw(/item /csv);
    }
    query($pg, q{INSERT INTO item VALUES (1, 'new')});
    answers(GET => '/item', '[{"id":1,"name":"new","more1":7,"more2":7,"more3":7}]');
    answers(GET => '/csv', "id,name,more1,more2,more3\r\n1,new,7,7,7\r\n");
    query($pg, 'DROP TABLE item');
    isnt ask($_ => '/item')->{status}, 200, "$_ of a dropped table" for qw(GET HEAD);
    query($pg, 'CREATE TABLE item (id int PRIMARY KEY, name text)');
    is ask($_ => '/item')->{status}, 200, "$_ of a new table" for qw(HEAD GET);
};
$httpd->stop;

done_testing;
