#!/usr/bin/perl

# The text of requests and of the configuration is UTF-8, whatever the encoding of the database and
# the environment: PostgreSQL stores and finds the same text, or refuses it.

use PgPoolTest;
use Probe;

my $cafe = "caf\xC3\xA9";
my $euro = "\xE2\x82\xAC";
my $pg = postgres;
my %encoding = (latin => 'LATIN1', ascii => 'SQL_ASCII', utf => 'UTF8');
for my $name (sort keys %encoding) {
    query($pg, "CREATE DATABASE $name TEMPLATE template0 ENCODING '$encoding{$name}' LOCALE 'C'");
    $pg->safe_psql($name, 'CREATE TABLE word (word text)');
}

# One child, so that the next request has the same connection.
my @child = ($ENV{PGPOOL_MPM} // '') eq 'prefork' ? (threads => 1) : ();

sub in_database {
    my ($name, @more) = @_;
    my $conninfo = conninfo($pg) =~ s/dbname='postgres'/dbname=$name/r;
    return join "\n", "<PgPool $name>", "PgPoolConninfo \"$conninfo\"", 'PgPoolMax 1', 'PgPoolMin 1', @more, "</PgPool>\n";
}

sub location {
    my ($name, $path, $sql, @expr) = @_;
    return <<"CONF";
<LocationMatch "^/$name/$path(/(?<word>.*))?\$">
  SetHandler pgpool-query
  PgPoolUse $name
  PgPoolQuery "$sql" @{[map { qq("$_") } @expr]}
</LocationMatch>
CONF
}

sub locations {
    my ($name) = @_;
    my $word = '%{env:MATCH_WORD}';
    return location($name, 'put', 'INSERT INTO word VALUES ($1) RETURNING length(word) AS n', $word)
        . location($name, 'find', 'SELECT word FROM word WHERE word = $1', $word)
        . location($name, 'literal', "SELECT word FROM word WHERE word = '$cafe'")
        . location($name, 'all', 'SELECT count(*) AS n FROM word')
        . "<Location /named/$name>\n  SetHandler pgpool-query\n  PgPoolUse $name\n  PgPoolSet app.user \"%{arg:u}\"\n"
        . "  PgPoolQuery \"SELECT length(current_setting('app.user')) AS n\"\n</Location>\n"
        . "<Location /probe/$name>\n  PgPoolUse $name\n  PgPoolSet app.user $cafe\n</Location>\n";
}

my $httpd = probed(join('', map({ in_database($_) } sort keys %encoding), map({ locations($_) } sort keys %encoding),
        map { in_database($_->[0], qq(PgPoolInitSQL "SET client_encoding = $_->[1]")) } ['set-utf', 'UTF8'], ['set-latin', 'LATIN1'])
        =~ s/dbname=set-\w+/dbname=latin/gr,
    @child, modules => ['pgpool_query'], env => { PGCLIENTENCODING => 'LATIN1' });

sub said {
    my ($path) = @_;
    my $got = $httpd->get($path);
    return $got->{status} == 200 ? $got->{content} : $got->{status};
}

for my $name (qw(latin utf)) {
    subtest "a database in $encoding{$name}" => sub {
        is said("/$name/put/caf%C3%A9"), '[{"n":4}]', 'a word of four characters is stored as four';
        is said("/$name/find/caf%C3%A9"), qq([{"word":"$cafe"}]), '... found and answered in UTF-8';
        is said("/$name/literal"), qq([{"word":"$cafe"}]), '... found by a literal';
        tells probe_in($name, "sql=SELECT length(current_setting('app.user'))"), { value => 4 }, 'PgPoolSet sets that word';
        tells probe_in($name, 'encoding'), { encoding => 'UTF8' }, '... the connection speaks UTF-8';
    };
}

sub probe_in {
    my ($name, @command) = @_;
    return $httpd->get(probe_at('acquire', @command) =~ s{^/probe}{/probe/$name}r);
}

subtest 'a character that the database does not have' => sub {
    my $from = $httpd->log_end;
    is said("/latin/put/%E2%82%AC"), 400, 'is refused';
    $httpd->wait_log(qr/PGP1020: .*SQLSTATE 22P05: /, from => $from);
    is said("/latin/find/%E2%82%AC"), 400, '... also by a search';
    is said("/latin/all"), '[{"n":1}]', '... and nothing is stored for it';
    is said("/utf/put/%E2%82%AC"), '[{"n":1}]', 'and stored in a database that has it';
};

subtest 'bytes that are not UTF-8' => sub {
    is said("/$_/put/caf%E9"), 400, "are refused in $encoding{$_}" for sort keys %encoding;
};

subtest 'a value of PgPoolSet that the database cannot store' => sub {
    my $from = $httpd->log_end;
    is said('/named/latin?u=caf%C3%A9'), '[{"n":4}]', 'another is set';
    is said("/named/latin?u=$_"), 400, "$_ is the client's mistake" for '%E2%82%AC', '%E9';
    like $httpd->error_log($from), qr/pgpool:info.* PGP1015: pool latin: PgPoolSet: .*22P05/, '... which the log tells at info';
};

# With another encoding the values would become another text.
subtest 'a request that has changed client_encoding' => sub {
    my $change = 'sql=SET client_encoding = LATIN1';
    tells probe_in('latin', $change, 'again'), { status => 0, again => 'EUNAVAIL' }, 'cannot set PgPoolSet again';
    my $from = $httpd->log_end;
    my $got = probe($httpd, 'acquire=latin', $change, 'subreq=/latin/find/caf%C3%A9', 'sql=SELECT 42');
    like $got->{content}, qr/^value=42$/m, 'its subrequest leaves the connection as it is';
    unlike $got->{content}, qr/word/, '... and has no rows';
    $httpd->wait_log(qr/PGP1020: .* another handler of the request has changed client_encoding/, from => $from);
};

# Such a database has only bytes, no characters.  The bytes of a request are checked all the same.
subtest 'a database in SQL_ASCII' => sub {
    is said('/ascii/put/caf%C3%A9'), '[{"n":5}]', 'a word is stored as its bytes';
    is said('/ascii/find/caf%C3%A9'), qq([{"word":"$cafe"}]), '... found and answered';
    is said('/ascii/literal'), qq([{"word":"$cafe"}]), '... found by a literal';
};

subtest 'PgPoolInitSQL' => sub {
    tells probe($httpd, 'acquire=set-utf', 'encoding'), { encoding => 'UTF8' }, 'may say UTF8';
    my $answer = probe($httpd, 'acquire=set-latin', 'notes');
    is told($answer, 'status'), 'EUNAVAIL', 'cannot set another encoding';
    like told($answer, 'note.pgpool-error'), qr/client_encoding is LATIN1 after PgPoolInitSQL/, '... and the note says so';
};
$httpd->stop;

# ---- a borrower that changes client_encoding

my @mode = qw(session all auto transaction);
my $modes = probed(join("\n", map { in_database($_, "PgPoolReset $_") } @mode) =~ s/dbname=\w+/dbname=latin/gr
    . "<Location /probe/set>\n  PgPoolSet app.user x\n</Location>\n", @child);

my @change = (
    ['SET' => 'sql=SET client_encoding = LATIN1'],
    ['set_config()' => q(sql=SELECT set_config('client_encoding', 'LATIN1', false))],
    ['... and a transaction' => 'sql=SET client_encoding = LATIN1', 'sql=BEGIN'],
    ['SET LOCAL' => 'sql=BEGIN', 'sql=SET LOCAL client_encoding = LATIN1'],
);

for my $mode (@mode) {
    subtest "PgPoolReset $mode" => sub {
        for (@change) {
            my ($name, @command) = @$_;
            my $before = probe($modes, "acquire=$mode", @command, 'encoding');
            tells $before, { encoding => 'LATIN1' }, "$name: a borrower may change it";
            my $after = probe($modes, "acquire=$mode", 'encoding', 'state',
                "sql=SELECT length('$cafe') || current_setting('client_encoding')");
            tells $after, { encoding => 'UTF8', tx => 'IDLE', nonblocking => 0, value => '4UTF8' }, '... only for itself';
            is told($after, 'pid'), told($before, 'pid'), '... on the same connection';
        }
        $modes->get(probe_at("acquire=$mode", 'sql=SET client_encoding = LATIN1') =~ s{^/probe}{/probe/set}r);
        tells probe($modes, "acquire=$mode", 'encoding'), { encoding => 'UTF8' }, 'with PgPoolSet, too';
    };
}
$modes->stop;

# ---- refused directives

subtest 'httpd -t' => sub {
    my $refused = Httpd->new(modules => ['pgpool']);
    for my $conninfo ('client_encoding=LATIN1', 'client_encoding=auto', 'postgresql:///db?client_encoding=SQL_ASCII') {
        my ($code, $said) = $refused->conf("PgPoolConninfo $conninfo")->config_test;
        isnt $code, 0, "$conninfo is refused";
        like $said, qr/client_encoding cannot be other than UTF8, since the text of requests/, '... and why';
    }
    for my $conninfo ('client_encoding=UTF8', 'client_encoding=utf-8', 'client_encoding=unicode', "client_encoding=''") {
        my ($code, $said) = $refused->conf("PgPoolConninfo \"$conninfo\"")->config_test;
        is $code, 0, "$conninfo is accepted" or diag $said;
    }
    my ($code, $said) = $refused->conf("PgPoolConninfo dbname=x\nPgPoolSet Client_Encoding LATIN1")->config_test;
    isnt $code, 0, 'PgPoolSet client_encoding is refused';
    like $said, qr/PgPoolSet cannot set client_encoding/, '... and why';
};

done_testing;
