#!/usr/bin/perl

# Making a connection: notices of the server, failures in libpq, servers that are not PostgreSQL,
# password files, encryption.

use PgPoolTest;
use FakeServer qw(conninfo_of log_in message say_message complete);
use JSON::PP ();
use Probe;

my $pg = postgres;
my $conninfo = conninfo($pg);
my $status = "<Location /status>\n  SetHandler pgpool-status\n</Location>";

sub pool_json {
    my ($httpd) = @_;
    return JSON::PP::decode_json($httpd->get('/status?json')->{content})->{pools}{default};
}

subtest 'a warning of the server at log-in' => sub {
    query($pg, q{CREATE ROLE noisy LOGIN; ALTER ROLE noisy SET default_text_search_config = 'nowhere'});
    my $httpd = probed(qq(PgPoolConninfo "$conninfo user=noisy"));
    tells probe($httpd, 'acquire', 'sql=SELECT 1'), { value => 1 }, 'connected';
    my @said = grep { /nowhere/ } split /\n/, $httpd->error_log;
    cmp_ok scalar @said, '>', 0, 'the warning is in the log';
    is_deeply [grep { !/PGP1010: pool default/ } @said], [], '... as message PGP1010';
    $httpd->stop;
};

subtest 'libpq has no memory for event procedures' => sub {
    my $short = "$ENV{TESTDIR}/short-of-memory";
    Httpd::spew($short, '');
    my $httpd = probed("PgPoolConninfo \"$conninfo\"\nPgPoolMin 1\nPgPoolRetry 10ms 50ms",
        preload => ['preload_hostile'], env => { HOSTILE_REGISTER => $short });
    $httpd->wait_log(qr/PGP1002: pool default: cannot connect: libpq cannot register the connection/);
    unlike $httpd->error_log, qr/PGP1001/, 'no connection without them';
    unlink $short;
    ok poll_until { probe($httpd, 'acquire', 'sql=SELECT 1')->{content} =~ /^value=1$/m }, 'served later';
    $httpd->stop;
};

subtest 'signals during a poll() of a socket' => sub {
    my $httpd = probed("PgPoolConninfo \"$conninfo\"\nPgPoolMin 1\nPgPoolMax 1\nPgPoolReset transaction",
        preload => ['preload_hostile'], env => { HOSTILE_POLL => 1 });
    tells probe($httpd, 'acquire', 'sql=SELECT 1'), { value => 1 }, 'served';
    for my $n (1 .. 4) {
        my $before = told(probe($httpd, 'acquire'), 'pid');
        kill_backends($pg);
        my $answer = probe($httpd, 'acquire', 'sql=SELECT 1');
        tells $answer, { status => 0, value => 1 }, "no dead connection is lent, loss $n";
        isnt told($answer, 'pid'), $before, '... but another';
    }
    $httpd->stop;
};

# A server that answers each statement with this many rows of one null.
sub answers_nothing {
    my ($rows) = @_;
    return FakeServer->new(sub {
        my ($session) = @_;
        log_in($session);
        while (my ($type, $body) = message($session)) {
            next if $type ne 'Q';
            say_message($session, T => pack 'n Z* N n N n N n', 1, 'c', 0, 0, 23, 4, -1, 0);
            say_message($session, D => pack 'n N', 1, -1) for 1 .. $rows;
            complete($session, "SELECT $rows");
        }
    });
}

subtest 'a server that does not tell its capacity' => sub {
    for my $rows (0, 1) {
        my $server = answers_nothing($rows);
        my $httpd = probed(qq(PgPoolConninfo "@{[conninfo_of($server)]}"\nPgPoolReset transaction));
        tells probe($httpd, 'acquire'), { status => 0 }, "is used all the same: $rows rows";
        unlike $httpd->error_log, qr/PGP1018/, '... without a warning';
        $httpd->stop;
    }
};

subtest 'a parameter without a value' => sub {
    my $server = FakeServer->new(sub {
        my ($session) = @_;
        log_in($session);
        while (my ($type) = message($session)) {
            next if $type ne 'Q';
            say_message($session, S => "in_hot_standby\0\0");
            complete($session, 'SET');
        }
    });
    my $httpd = probed(qq(PgPoolConninfo "@{[conninfo_of($server)]}"\nPgPoolReset transaction));
    tells probe($httpd, 'acquire'), { status => 0 }, 'is none';
    $httpd->stop;
};

subtest "a number of PgBouncer instead of a backend's pid" => sub {
    my $server = FakeServer->new(sub {
        my ($session) = @_;
        log_in($session, pid => 0xfffffff0);
        while (my ($type) = message($session)) {
            complete($session, 'SET') if $type eq 'Q';
        }
    });
    my $httpd = probed(qq(PgPoolConninfo "@{[conninfo_of($server)]}"\nPgPoolReset transaction\n$status));
    my $held = hold($httpd, qw(acquire notes gate));
    ok poll_until { (pool_json($httpd)->{holders}[0]{backend} // 0) == 4294967280 }, 'the page has the number';
    my $answer = let_go($held);
    like told($answer, 'note.pgpool-default'), qr{\Adefault/4294967280/\d+\z}, 'the lease has it, without a sign';
    like $httpd->error_log, qr/PGP1004: pool default, backend 4294967280: /, '... so has the log';
    $httpd->stop;
};

# ---- the password file

query($pg, q{CREATE ROLE guarded LOGIN PASSWORD 'open sesame'});
my $hba = $pg->data_dir . '/pg_hba.conf';
Httpd::spew($hba, "local all guarded scram-sha-256\n" . Httpd::slurp($hba));
$pg->reload;

my $passfiles = 0;

# Write a password file with this mode and line; in it "*" is any host, port, database or user.
sub passfile {
    my ($mode, $line) = @_;
    my $file = "$ENV{TESTDIR}/passfile" . ++$passfiles;
    Httpd::spew($file, "$line\n");
    chmod $mode, $file;
    return $file;
}

subtest 'a passfile that does not help' => sub {
    my $good = '*:*:*:guarded:open sesame';
    my $hidden = "$ENV{TESTDIR}/hidden";
    mkdir $hidden, 0;
    my $uid = $>;
    my %case = (
        'of the wrong mode' => [passfile(0644, $good), qr/\(owner uid $uid, mode 0644\) is not used: it needs mode 0600/],
        'not to be read'    => [passfile(0000, $good), qr/\(owner uid $uid, mode 0000\) cannot be read by uid $uid/],
        'out of sight'      => ["$hidden/x", qr/: Permission denied, for uid $uid/],
        'not there'         => ["$hidden-not", qr/: No such file or directory, for uid $uid/],
        'a directory'       => [$hidden, qr/\(owner uid $uid, mode 0000\) is not a plain file/],
        "another user's"    => [passfile(0600, '*:*:*:nobody:x'), qr/\(owner uid $uid, mode 0600\) has no password for this host/],
    );
    for my $what (sort keys %case) {
        my ($file, $why) = @{ $case{$what} };
        my $httpd = probed(qq(PgPoolConninfo "$conninfo user=guarded passfile=$file"));
        $httpd->wait_log(qr/PGP1002: .*cannot connect: passfile "\Q$file\E"? ?$why.*: connection to server/);
        pass $what;
        $httpd->stop;
    }
    my %place = (PGPASSFILE => passfile(0640, $good), HOME => "$ENV{TESTDIR}/home");
    mkdir $place{HOME};
    Httpd::spew("$place{HOME}/.pgpass", "$good\n");
    chmod 0604, "$place{HOME}/.pgpass";
    for my $name (sort keys %place) {
        my $httpd = probed(qq(PgPoolConninfo "$conninfo user=guarded"), env => { $name => $place{$name} });
        $httpd->wait_log(qr/PGP1002: .*cannot connect: passfile "$place{$name}.*" \(owner uid $uid, mode 06.*is not used/);
        pass "by $name";
        $httpd->stop;
    }
};

subtest 'a passfile that helps' => sub {
    my $file = passfile(0600, '*:*:*:guarded:open sesame');
    my $httpd = probed(<<"CONF");
PgPoolConninfo "$conninfo user=guarded passfile=$file"
PgPoolConnectTimeout 30s
PgPoolAcquireTimeout 60s
CONF
    tells probe($httpd, 'acquire', 'sql=SELECT current_user'), { value => 'guarded' }, 'is read';
    unlike $httpd->error_log, qr/PGP1002|open sesame/, '... and not in the log';
    $httpd->stop;
};

# ---- encryption

# A server that accepts TLS over TCP, with a self-signed certificate.
sub encrypted_server {
    my $node = postgres;
    my $dir = $node->data_dir;
    system(qw(openssl req -new -x509 -days 2 -nodes -subj /CN=127.0.0.1 -out), "$dir/server.crt", '-keyout',
        "$dir/server.key") == 0 or die 'no certificate';
    chmod 0600, "$dir/server.key";
    $node->append_conf('postgresql.conf', "ssl = on\nlisten_addresses = '127.0.0.1'");
    $node->restart;
    return $node;
}

sub open_connections { return pool_json(@_)->{open} }

# With such a HOME plain libpq would go on without TLS, and not say why.
subtest 'the children may not read HOME' => sub {
    my $tcp = conninfo(encrypted_server(), host => '127.0.0.1');
    my $home = "$ENV{TESTDIR}/not-to-be-read";
    mkdir $home, 0;
    for my $sslmode (qw(prefer require)) {
        my $httpd = probed("PgPoolConninfo \"$tcp sslmode=$sslmode\"\nPgPoolMin 2\nPgPoolMax 2\n$status",
            env => { HOME => $home }, threads => 2);
        my ($said) = $httpd->wait_log(qr/PGP1001: pool default, backend \d+: connected, (.*)/);
        like $said, qr/\ATLSv1\.\d\z/, "sslmode=$sslmode: encrypted, and the log says how";
        tells probe($httpd, 'acquire', 'sql=SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()'),
            { value => 't' }, '... as the server sees it';
        ok poll_until { (open_connections($httpd)->{tls} // 0) == 2 }, '... and counted in JSON';
        is open_connections($httpd)->{plain}, 0, '... and not as plain';
        my %content = map { $_ => $httpd->get("/status?$_")->{content} } qw(page auto openmetrics);
        like $content{page}, qr/open by encryption: tls&nbsp;2</, '... on the page';
        like $content{auto}, qr/^PgPool\.default\.open\.tls: 2$/m, '... in ?auto';
        like $content{openmetrics}, qr/^pgpool_open\{pool="default",encryption="tls"\} 2$/m, '... in OpenMetrics';
        $httpd->stop;
    }
};

# libpq goes on without TLS if it cannot read ~/.postgresql.  The test is not root, and plays it.
subtest 'httpd was started as root with its HOME' => sub {
    my $tcp = conninfo(encrypted_server(), host => '127.0.0.1');
    my $home = "$ENV{TESTDIR}/of-root";
    mkdir $home;
    mkdir "$home/.postgresql", 0;
    for my $root (0, 1) {
        my $httpd = probed("PgPoolConninfo \"$tcp\"\nPgPoolMin 1", threads => 2, preload => ['preload_hostile'],
            env => { HOME => $home, $root ? (HOSTILE_ROOT => 1) : () });
        my ($said) = $httpd->wait_log(qr/PGP1001: pool default, backend \d+: connected, (.*)/);
        $root ? like $said, qr/\ATLSv1/, 'root: the children look into the home directory of their own user'
              : is $said, 'no TLS', 'another user: HOME is as it was chosen';
        $httpd->stop;
    }
};

subtest 'a Unix socket' => sub {
    my $httpd = probed("PgPoolConninfo \"$conninfo\"\nPgPoolMin 2\nPgPoolMax 2\n$status", threads => 2);
    $httpd->wait_log(qr/PGP1001: pool default, backend \d+: connected, no TLS$/m);
    ok poll_until { open_connections($httpd)->{plain} == 2 }, 'counts as without TLS';
    is open_connections($httpd)->{tls}, 0, '... and not as with it';
    $httpd->stop;
};

done_testing;
