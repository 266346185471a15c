#!/usr/bin/perl

# The directives: `httpd -t` takes good ones, and refuses bad ones with file, line and a hint;
# virtual hosts inherit and share pools; no output shows a password.

use PgPoolTest;
use Probe;

my $conninfo = 'PgPoolConninfo "host=db dbname=app"';
my $parser = Httpd->new(modules => [qw(pgpool pgpool_query setenvif info)]);

sub config_test {
    my ($text, @argument) = @_;
    return $parser->conf($text)->config_test(@argument);
}

sub in_pool {
    my ($name, @line) = @_;
    return join "\n", "<PgPool $name>", @line, '</PgPool>';
}

sub in_host {
    my ($name, @line) = @_;
    return join "\n", '<VirtualHost *>', "ServerName $name", @line, '</VirtualHost>';
}

sub in_location {
    my (@line) = @_;
    return join "\n", '<Location /x>', @line, '</Location>';
}

# ---- refused directives

# The text of the line whose number httpd gives.
sub line_named {
    my ($output) = @_;
    my $file = quotemeta($parser->dir . '/httpd.conf');
    my ($number) = $output =~ /Syntax error on line (\d+) of $file/;
    ($number) = $output =~ /$file:(\d+): / if !$number;
    return 'none' if !$number;
    my @line = split /\n/, Httpd::slurp($parser->dir . '/httpd.conf');
    return $line[$number - 1];
}

# Test that httpd refuses a text, and gives the number of its last line, or of the line that ends in
# "#!".
sub refused {
    my ($name, $text, $hint) = @_;
    my ($culprit) = $text =~ /^(.*)#!$/m ? $1 : (split /\n/, $text)[-1];
    $text =~ s/#!$//m;
    my ($code, $output) = config_test($text);
    is $code, 1, $name;
    is line_named($output), $culprit, '... names its line';
    like $output, $hint, '... and says what is wrong';
    return;
}

my $time = 'such as 500ms, 2s, 5min or 1h';

# Directive, the words with which it refuses a value, values that it refuses.
my @bad_value = (
    [PgPoolMin        => qr/a whole number from 0 to 10000, not "/,
        qw(-1 10001 two 1.5 2s 0x2 9e9 99999999999999999999)],
    [PgPoolMax        => qr/a whole number from 1 to 10000, not "/,  qw(0 -1 10001 many 8x)],
    [PgPoolMaxWaiters => qr/a whole number from 0 to 100000, not "/, qw(-1 100001 none)],
    [PgPoolAcquireTimeout => qr/a time from 0 to 24h $time, not "/,
        qw(-1s 25h 2sec 2m 2d 1.5s s soon 99999999999999999999h 9223372036854775807s)],
    [PgPoolConnectTimeout => qr/a time from 10ms to 24h $time, not "/, qw(0 9ms 25h off)],
    [PgPoolCheckTimeout   => qr/a time from 1ms to 24h $time, not "/,  qw(0 0s 25h never)],
    [PgPoolPing           => qr/a time from 0 to 24h $time, or off, not "/, qw(on -1s 25h offf)],
    [PgPoolIdleTimeout    => qr/a time from 0 to 8760h $time, not "/,  qw(never 8761h 1w)],
    [PgPoolMaxLifetime    => qr/a time from 0 to 8760h $time, not "/,  qw(off 8761h)],
    [PgPoolRetry          => qr/a time from 1ms to 24h $time, not "/,
        '0 5s', '1s 0', '100ms 25h', '1x 5s', '1s 5x'],
    [PgPoolReset          => qr/session, all, auto, transaction or close, not "/, qw(none sessions 0 off)],
    [PgPoolRelease        => qr/request, response or auth, not "/, qw(handler off)],
    [PgPoolInitSQL        => qr/an SQL statement, not an empty string/, '";"', '" ; "'],
);

subtest 'values out of range or of another kind' => sub {
    for (@bad_value) {
        my ($directive, $hint, @value) = @$_;
        refused("$directive $_", "$directive $_", qr/^\Q$directive\E takes $hint/m) for @value;
    }
};

subtest 'PgPoolSet' => sub {
    refused("of $_", "PgPoolSet $_ x", qr/^PgPoolSet takes the name of a setting such as app.user/m)
        for '1a', '"a b"', 'a;b', 'a=b', q(a'b), '"a\"b"';
    refused('to a malformed expression', 'PgPoolSet app.user "%{"',
        qr/^PgPoolSet app.user: cannot parse the expression "%\{": /m);
};

subtest 'too many arguments, or too few' => sub {
    my @bad = (
        ['PgPoolMax'                      => 'one argument'],
        ['PgPoolMax 1 2'                  => 'one argument'],
        ['PgPoolRetry 1s'                 => 'two arguments'],
        ['PgPoolRetry 1s 2s 3s'           => 'two arguments'],
        ['PgPoolConninfo host=a dbname=b' => 'one argument'],
        ['PgPoolInitSQL ""'               => 'one argument'],
        ['PgPoolUse'                      => 'one argument'],
        ['PgPoolUse a b'                  => 'one argument'],
    );
    for (@bad) {
        my ($line, $wanted) = @$_;
        my ($directive) = split / /, $line;
        refused($line, $line, qr/^$directive takes $wanted\b/m);
    }
};

subtest 'options against each other' => sub {
    my $more = qr/pool default: PgPoolMin \(5\) is more than PgPoolMax \(4\)$/m;
    refused('Min above Max',          "$conninfo\nPgPoolMax 4\nPgPoolMin 5", $more);
    refused('... in the other order', "$conninfo\nPgPoolMin 5#!\nPgPoolMax 4", $more);
    refused('... from outside and inside',
        "PgPoolMin 5#!\n" . in_pool('a', $conninfo, 'PgPoolMax 4'),
        qr/pool a: PgPoolMin \(5\) is more than PgPoolMax \(4\)$/m);
    refused('... of a virtual host',
        join("\n", $conninfo, 'PgPoolMax 4', in_host('a', 'PgPoolMin 5#!')), $more);
    refused('Retry in the wrong order', "$conninfo\nPgPoolRetry 5s 100ms",
        qr/pool default: PgPoolRetry's first wait \(5s\) is longer than its greatest \(100ms\)$/m);
};

subtest 'connection strings' => sub {
    my @malformed = (
        ['an unknown keyword' => 'host=db sslmoode=on', qr/invalid connection option "\.\.\."/],
        ['no equals sign'     => 'db app',              qr/missing "\.\.\."/],
        ['no end of a quote'  => q(password='x),        qr/unterminated quoted string/],
        ['a bad URI'          => 'postgresql://[::1',   qr/matching "\.\.\."/],
        ['a bad percent'      => 'postgresql://a%zz/',  qr/percent-encoded token: "\.\.\."/],
        ['another scheme'     => 'mysql://db/app',      qr/missing "\.\.\."/],
    );
    my $form = 'PgPoolConninfo takes a libpq connection string such as "host=db dbname=app" '
        . 'or a postgresql:// URI';
    for (@malformed) {
        my ($name, $string, $hint) = @$_;
        refused($name, qq(PgPoolConninfo "$string"), qr/^\Q$form\E; libpq says: .*$hint/m);
    }
    refused('a URI with "@" in the password', 'PgPoolConninfo postgresql://u:p@ss@db/app',
        qr/^\Q$form; the host has a "@" in it; within a URI's password write it as %40\E$/m);
    refused('a URI with "/" in the password', 'PgPoolConninfo postgresql://u:p/ss@db/app',
        qr/^\Q$form; the port is no number; within a URI's password write "\E\/" as %2F$/m);
};

subtest 'pools' => sub {
    my $name = qr/<PgPool name> takes one name of 1 to 63 letters, digits, "_" and "-"/;
    refused("named $_", "<PgPool $_>#!\n</PgPool>", $name)
        for '', 'a b', '"a b"', 'a.b', 'a/b', "caf\xC3\xA9", 'a' x 64, '""';
    refused('no ">"', "<PgPool a#!\n</PgPool>", $name);
    refused('twice in one server', in_pool('a', $conninfo) . "\n<PgPool a>#!\n</PgPool>",
        qr/<PgPool a> is already defined at \S+httpd\.conf:\d+$/m);
    refused('without a connection string', "<PgPool a>#!\nPgPoolMax 3\n</PgPool>",
        qr/pool a has no PgPoolConninfo, and none stands outside of its <PgPool> either/);
    refused('... in a virtual host', in_host('x', "<PgPool a>#!\n</PgPool>"),
        qr/pool a has no PgPoolConninfo/);
    for my $line ('SetEnvIf Host . x', 'PgPoolUse a', 'PgPoolQuery "SELECT 1"', '<PgPool b>') {
        my ($directive) = $line =~ /^(\S+)/;
        my $end = $line =~ /^</ ? '</PgPool>' : '';
        refused("with $line inside", in_pool('a', $conninfo, "$line#!", $end),
            qr/^\Q$directive\E has no place inside <PgPool>$/m);
    }
    refused('with a bad value', in_pool('a', $conninfo, 'PgPoolMax 0#!'),
        qr/PgPoolMax takes a whole number from 1 to 10000, not "0"/);
};

subtest 'PgPoolUse of a pool that does not exist' => sub {
    my $hint = sub { return qr/PgPoolUse $_[0]: there is no <PgPool $_[0]> in this server$/m };
    refused('in the server', "$conninfo\nPgPoolUse b", $hint->('b'));
    refused('in a location', "$conninfo\n" . in_location('PgPoolUse b#!'), $hint->('b'));
    refused('of the default', in_pool('a', $conninfo) . "\nPgPoolUse default", $hint->('default'));
    refused('of another server\'s',
        join("\n", in_host('x', in_pool('a', $conninfo)), in_host('y', 'PgPoolUse a#!')),
        $hint->('a'));
};

subtest 'in a wrong context' => sub {
    for my $line ($conninfo, 'PgPoolMin 1', 'PgPoolInitSQL "SELECT 1"', '<PgPool a>') {
        my $end = $line =~ /^</ ? "\n</PgPool>" : '';
        my ($directive) = $line =~ /^(\S+?)>?(?:\s|$)/;
        my $hint = qr/\Q$directive\E not allowed (?:here|in)/;
        refused("$_: $line", "<$_ /x>\n$line#!$end\n</$_>", $hint) for qw(Directory Location);
    }
};

# ---- accepted directives

# The values in the dump of the configuration, {server}{pool}{directive}, and their origins.
sub dumped {
    my ($text) = @_;
    my ($code, $output) = config_test($text, '-D', 'DUMP_PGPOOL');
    is $code, 0, 'is taken' or diag $output;
    my (%value, %origin, $server, $pool);
    for (split /\n/, $output) {
        $server = $1 if /^PgPool configuration of (\S+) \(/;
        $pool = $1   if /^  <PgPool (\S+)>$/;
        next if !/^    (\S+) +(\S.*?)  # (\S+)$/;
        $value{$server}{$pool}{$1} = $2;
        $origin{$server}{$pool}{$1} = $3;
    }
    return (\%value, \%origin);
}

sub dumped_default {
    my ($text) = @_;
    my ($value) = dumped("$conninfo\n$text");
    return $value->{'127.0.0.1'}{default};
}

# Directive, its argument, and the argument in the dump if that differs.
my @good_value = (
    [PgPoolConninfo => '"host=db dbname=app"', 'dbname=app host=db'],
    [PgPoolConninfo => 'postgresql://joe@db:5433/app?sslmode=require',
        'user=joe dbname=app host=db port=5433 sslmode=require'],
    [PgPoolConninfo => q("host='a b' options=-cwork_mem=1MB"),
        q(host='a b' options=-cwork_mem=1MB)],
    # libpq marks some secrets only as debug options.
    [PgPoolConninfo => '"host=db replication=false"', 'host=db replication=***'],
    [PgPoolConninfo => '"host=@abstract,@other port=5432,5433"',
        'host=@abstract,@other port=5432,5433'],
    [PgPoolMin => 0], [PgPoolMin => 32], [PgPoolMax => 2], [PgPoolMax => 10000],
    [PgPoolMaxWaiters => 0], [PgPoolMaxWaiters => 100000],
    [PgPoolAcquireTimeout => '0'], [PgPoolAcquireTimeout => '500ms'],
    [PgPoolAcquireTimeout => '3', '3s'], [PgPoolAcquireTimeout => '1500ms'],
    [PgPoolAcquireTimeout => '60s', '1min'], [PgPoolAcquireTimeout => '24h'],
    [PgPoolConnectTimeout => '10ms'], [PgPoolCheckTimeout => '1ms'],
    [PgPoolRetry => '1ms 1ms'], [PgPoolRetry => '250ms 1min'],
    [PgPoolPing => 'off'], [PgPoolPing => 'OFF', 'off'], [PgPoolPing => '0'], [PgPoolPing => '5s'],
    [PgPoolIdleTimeout => '0'], [PgPoolIdleTimeout => '8760h'], [PgPoolMaxLifetime => '0s', '0'],
    [PgPoolReset => 'ALL', 'all'], (map { [PgPoolReset => $_] } qw(session all auto transaction)),
    [PgPoolInitSQL => '"SET a.b = 1"'], [PgPoolInitSQL => 'BEGIN;COMMIT', '"BEGIN;COMMIT"'],
);

subtest 'good values' => sub {
    for (@good_value) {
        my ($directive, $written, $shown) = @$_;
        is dumped_default("$directive $written")->{$directive}, $shown // $written,
            "$directive $written";
    }
    is dumped_default(qq(PgPoolInitSQL one\nPgPoolInitSQL "two 2"))->{PgPoolInitSQL},
        '"one" "two 2"', 'PgPoolInitSQL may repeat';
    is dumped_default("PgPoolMax 3\nPgPoolMax 4")->{PgPoolMax}, 4, 'of others the last counts';
};

subtest 'a PgPoolMax below the default PgPoolMin lowers it' => sub {
    my ($value, $origin) = dumped("$conninfo\nPgPoolMax 1\n" . in_pool('a', 'PgPoolMax 7'));
    my $pools = $value->{'127.0.0.1'};
    is_deeply [@{ $pools->{default} }{qw(PgPoolMin PgPoolMax)}], [1, 1], 'down to PgPoolMax';
    is_deeply [@{ $pools->{a} }{qw(PgPoolMin PgPoolMax)}], [2, 7], '... in no other pool';
    is $origin->{'127.0.0.1'}{default}{PgPoolMin}, 'default', '... and its origin is the default';
};

subtest '<IfModule> and <IfDefine>' => sub {
    my ($value) = dumped(in_pool('a', $conninfo,
        '<IfModule pgpool_module>', 'PgPoolMax 7', '</IfModule>',
        '<IfDefine NEVER>', 'SetEnvIf Host . x', '</IfDefine>'));
    is $value->{'127.0.0.1'}{a}{PgPoolMax}, 7, 'may stand inside <PgPool>';
};

subtest 'without any pool' => sub {
    is_deeply [config_test('PgPoolMax 5')], [0, "Syntax OK\n"], 'all is well';
    my ($value) = dumped('PgPoolMax 5');
    is_deeply $value, {}, '... and there is nothing to show';
};

# ---- inheritance

subtest 'directives outside of <PgPool> are the defaults of named pools' => sub {
    my ($value, $origin) = dumped(join "\n",
        in_pool('early', 'PgPoolMin 1'),
        $conninfo, 'PgPoolMax 9', 'PgPoolInitSQL one',
        in_pool('late', 'PgPoolConninfo host=other', 'PgPoolInitSQL two'));
    my $pools = $value->{'127.0.0.1'};
    my @shown = qw(PgPoolConninfo PgPoolMin PgPoolMax PgPoolInitSQL);
    my $db = 'dbname=app host=db';
    is_deeply [@{ $pools->{default} }{@shown}], [$db, 2, 9, '"one"'], 'the default';
    is_deeply [@{ $pools->{early} }{@shown}],   [$db, 1, 9, '"one"'], 'written before it';
    is_deeply [@{ $pools->{late} }{@shown}], ['host=other', 2, 9, '"two"'], 'written after it';
    is $origin->{'127.0.0.1'}{early}{PgPoolMax}, $origin->{'127.0.0.1'}{default}{PgPoolMax},
        'an inherited value keeps its origin';
};

subtest 'virtual hosts inherit pools by name and overlay what they set' => sub {
    my ($value) = dumped(join "\n",
        $conninfo, 'PgPoolMax 9', in_pool('a', 'PgPoolMax 8', 'PgPoolMin 4'),
        in_host('same'),
        in_host('bare', 'PgPoolMax 7'),
        in_host('named', in_pool('a', 'PgPoolMin 3'), in_pool('own', 'PgPoolPing off')));
    my @expected = (
        ['127.0.0.1' => { default => '2 9 30s', a => '4 8 30s' }],
        [same        => { default => '2 9 30s', a => '4 8 30s' }],
        [bare        => { default => '2 7 30s', a => '4 8 30s' }],
        [named       => { default => '2 9 30s', a => '3 8 30s', own => '2 9 off' }],
    );
    for (@expected) {
        my ($host, $pools) = @$_;
        my %got = map { $_->[0] => join ' ', @{ $_->[1] }{qw(PgPoolMin PgPoolMax PgPoolPing)} }
            map { [$_ => $value->{$host}{$_}] } keys %{ $value->{$host} };
        is_deeply \%got, $pools, $host;
    }
};

# ---- over a real server

my $pg = postgres;
my $own = 'PgPoolConninfo "' . conninfo($pg) . '"';

sub pid_at {
    my ($httpd, $host, @command) = @_;
    my $path = probe_at(@command ? @command : 'acquire');
    my $answer = $httpd->begin($path, headers => { Host => $host })->finish;
    return told($answer, 'pid') // $answer->{content};
}

subtest 'virtual hosts with equal pools share one' => sub {
    my $httpd = probed(join "\n", $own, 'PgPoolMax 1',
        in_pool('p', 'PgPoolConninfo "' . conninfo($pg, application_name => 'p') . '"'),
        in_host('same', $own, 'PgPoolMin 1', in_pool('p')),
        in_host('larger', 'PgPoolMax 2'),
        in_host('asks', in_pool('p', 'PgPoolInitSQL "SELECT 1"')));
    my @host  = qw(main same larger asks);
    my %pid   = map { $_ => pid_at($httpd, $_) } @host;
    my %named = map { $_ => pid_at($httpd, $_, 'acquire=p') } @host;
    is $pid{same}, $pid{main}, 'equal, with another origin';
    is $pid{asks}, $pid{main}, 'inherited';
    isnt $pid{larger}, $pid{main}, 'another PgPoolMax';
    is $named{same}, $named{main}, 'the same for a named pool';
    isnt $named{larger}, $named{main}, 'another default for it';
    isnt $named{asks}, $named{main}, 'other init SQL';
    isnt $named{main}, $pid{main}, 'another name';
    # "default" of one and of two connections, "p" of one, of two and of one.
    ok poll_until { backends($pg) == 7 }, 'and there are no more' or diag backends($pg);
    $httpd->stop;
};

subtest 'no directive is allowed in .htaccess' => sub {
    my $httpd = httpd(join "\n",
        $own, '<Directory "${DIR}/htdocs">', 'AllowOverride All', '</Directory>');
    my @line = (
        $own, 'PgPoolMax 3', 'PgPoolUse default', 'PgPoolRelease request', 'PgPoolSet a.b c',
        "<PgPool a>\n</PgPool>",
    );
    for my $line (@line) {
        $httpd->put_file('.htaccess', "$line\n");
        my $from = $httpd->log_end;
        my ($directive) = $line =~ /^(<?\w+)/;
        is $httpd->get('/')->{status}, 500, "$directive: 500";
        like $httpd->error_log($from), qr/\.htaccess: \Q$directive\E not allowed here/,
            '... and the log says why';
    }
    $httpd->stop;
};

# ---- passwords

# No output may show any part of this.
my $secret = 'S3cr1tW0rd';

query($pg, "CREATE ROLE guarded LOGIN PASSWORD 'another one'");
Httpd::spew($pg->data_dir . '/pg_hba.conf',
    "local all guarded scram-sha-256\nlocal all all trust\n");
$pg->reload;

my ($host, $port) = ($pg->host, $pg->port);
my $socket = "host=$host port=$port dbname=postgres user=guarded";
my $host_in_uri = $host =~ s{/}{%2F}gr;

# Every form in which a connection string may have a password.  Valid ones:
my %with_secret = (
    keyword => qq("$socket password=$secret"),
    quoted  => qq("$socket password = '$secret $secret'"),
    escaped => qq("$socket password='it\\\\'s $secret\\\\\\\\'"),
    uri     => qq("postgresql://guarded:$secret\@$host_in_uri:$port/postgres"),
    query   => qq("postgresql://guarded\@/postgres?host=$host&port=$port&password=$secret"),
    ssl     => qq("$socket password=$secret sslpassword=$secret"),
);

# Forms that are refused.
my %malformed = (
    'an open quote'        => qq("$socket password='$secret"),
    'unquoted blanks'      => qq("$socket password=x $secret"),
    'no quotes'            => qq($socket password=$secret),
    'a wrong keyword'      => qq("$socket pasword=$secret"),
    'no keyword'           => qq("$secret"),
    'a quote in it'        => qq("$socket password=x $secret\\"$secret=y"),
    'a bad URI'            => qq("postgresql://guarded:$secret\@[::1"),
    'a bad percent in it'  => qq("postgresql://guarded:$secret%zz\@db/x"),
    'an "@" in it'         => qq("postgresql://guarded:x\@$secret\@db/x"),
    'a "/" in it'          => qq("postgresql://guarded:$secret/x\@db/x"),
    'a query without end'  => qq("postgresql://db/x?password$secret"),
    'a query misspelled'   => qq("postgresql://db/x?pasword=$secret"),
);

sub hides {
    my ($text, $name) = @_;
    return unlike $text, qr/S3cr|tW0rd/, $name;
}

sub times_seen {
    my ($text, $pattern) = @_;
    return scalar(() = $text =~ /$pattern/g);
}

subtest 'passwords: httpd -t' => sub {
    for my $form (sort keys %malformed) {
        my ($code, $output) = config_test("PgPoolConninfo $malformed{$form}");
        is $code, 1, "$form: refused";
        hides($output, '... without the password');
    }
    my ($code, $output) = config_test(in_location("PgPoolConninfo $with_secret{keyword}"));
    is $code, 1, 'in the wrong place: refused';
    hides($output, '... without the password');
    for my $form (sort keys %with_secret) {
        my $line = "PgPoolConninfo $with_secret{$form}";
        ($code, $output) = config_test("$line\n" . in_pool('a', $line), '-D', 'DUMP_PGPOOL');
        is $code, 0, "$form: dumped";
        is times_seen($output, qr/password=\*\*\*/), $form eq 'ssl' ? 4 : 2, '... with stars';
        hides($output, '... without the password');
        ($code, $output) = config_test($line, '-D', 'DUMP_CONFIG');
        like $output, qr/PgPoolConninfo .*password=\*\*\*/, '... likewise by mod_info';
        hides($output, '... without the password');
    }
};

subtest 'passwords: a running httpd that is refused' => sub {
    my @form = sort keys %with_secret;
    my $httpd = probed(
        join("\n", 'PgPoolAcquireTimeout 20s',
            map({ in_pool($_, "PgPoolConninfo $with_secret{$_}") } @form),
            '<Location /server-info>', 'SetHandler server-info', '</Location>'),
        modules => ['info']);
    for my $form (@form) {
        my $answer = probe($httpd, "acquire=$form", qw(strerror notes httpstatus));
        is $answer->{status}, 503, "$form: status";
        hides($answer->{content}, '... without the password');
        $answer = probe($httpd, "acquire=$form", qw(strerror notes));
        is told($answer, 'status'), 'EUNAVAIL', '... no connection';
        like told($answer, 'note.pgpool-error'), qr/password authentication failed.*SQLSTATE 28P01/,
            '... the note says why';
        hides($answer->{content}, '... without the password');
    }
    my $info = $httpd->get('/server-info');
    is times_seen($info->{content}, qr/PgPoolConninfo.*password=\*\*\*/), scalar @form,
        'mod_info shows all with stars';
    hides($info->{content}, '... without the password');
    hides($httpd->access_log, 'nor in the access log');
    ok $httpd->wait_log(qr/PGP1002: pool $_: cannot connect: .*28P01/), "... which tells of $_"
        for @form;
    $httpd->stop;
    hides($httpd->error_log, 'no password in the error log after the stop');
};

done_testing;
