#!/usr/bin/perl

# PgPoolPassword: a password from a file or from a command, read again for each connect, changed
# under load, and never shown.

use PgPoolTest;
use Probe;
use Load;

my $pg = postgres;
query($pg, 'CREATE ROLE web LOGIN');
set_password('first');
Httpd::spew($pg->data_dir . '/pg_hba.conf', "local all web scram-sha-256\nlocal all all trust\n");
$pg->reload;

my $dir = File::Temp->newdir('password-XXXXXX', DIR => $ENV{TESTDIR} || '/tmp');
my $file = "$dir/password";
my $conninfo = conninfo($pg, user => 'web', application_name => 'web');

sub set_password {
    my ($password) = @_;
    query($pg, "SET password_encryption = 'scram-sha-256'; ALTER ROLE web PASSWORD 'geheim-$password'");
    return;
}

# Replace a file by renaming a new one, as tools that rotate secrets do.
sub write_file {
    my ($name, $text, $mode) = @_;
    Httpd::spew("$name.new", $text);
    chmod $mode // 0640, "$name.new" or die "$name: $!";
    rename "$name.new", $name or die "$name: $!";
    return $name;
}

sub script {
    my ($name, $body) = @_;
    return write_file("$dir/$name", "#!/bin/sh\n$body\n", 0755);
}

# A command inherits httpd's environment: with a sanitizer LD_PRELOAD loads its library into the
# shell, which fails.
my $has_commands = !$ENV{PGPOOL_SANITIZE};

sub served_with {
    my ($source, $conf) = @_;
    return probed(<<"CONF");
PgPoolConninfo "$conninfo"
PgPoolPassword $source
PgPoolRetry 50ms 200ms
PgPoolMin 1
PgPoolMax 4
@{[$conf // '']}
CONF
}

sub gets_in {
    my ($httpd) = @_;
    return poll_until { told(probe($httpd, qw(acquire)), 'status') eq '0' };
}

sub is_secret {
    my ($httpd) = @_;
    unlike $httpd->error_log, qr/geheim/, 'no password in the log';
    return;
}

subtest 'a file of mode 0640 that ends in a newline' => sub {
    write_file($file, "geheim-first\n");
    my $httpd = served_with("file:$file");
    ok gets_in($httpd), 'connects';
    my $dump = ($httpd->config_test('-D', 'DUMP_PGPOOL'))[1];
    like $dump, qr/PgPoolPassword +"file:\Q$file\E"/, 'the dump has the path';
    unlike $dump, qr/geheim/, '... and no password';
    is_secret($httpd);
    $httpd->stop;
};

subtest 'the password changes ten times under load' => sub {
    my $httpd = served_with("file:$file", 'PgPoolMaxLifetime 500ms');
    ok gets_in($httpd), 'connects';
    my $load = Load->new($httpd->url(probe_at('acquire', 'sql=SELECT 1')), clients => 8);
    for my $n (1 .. 10) {
        set_password("again$n");
        write_file($file, "geheim-again$n\n");
        my $changed = query($pg, 'SELECT now()');
        ok poll_until {
            query($pg, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'web' AND backend_start > '$changed'");
        }, "change $n: a new connection";
    }
    my $seen = $load->stop;
    is_deeply [keys %$seen], [200], 'no request has failed' or diag explain $seen;
    is_secret($httpd);
    $httpd->stop;
};

subtest 'the server changes the password before the file does' => sub {
    my $httpd = served_with("file:$file");
    ok gets_in($httpd), 'connects';
    set_password('late');
    kill_backends($pg, 'web');
    ok $httpd->wait_log(qr/PGP1002: .*28P01/), 'rejected';
    write_file($file, 'geheim-late');
    ok gets_in($httpd), 'the file has it, without a newline: connects again';
    is_secret($httpd);
    $httpd->stop;
};

# The command prints the right password only when it is run for the second time.
subtest 'a rejected password is read once more before the back-off' => sub {
    plan skip_all => 'no command runs' if !$has_commands;
    my $command = script('second', qq(echo x >> "$dir/count"\n)
        . qq([ \$(wc -l < "$dir/count") -ge 2 ] && echo "\$1" || echo geheim-wrong));
    my $httpd = served_with("exec:$command geheim-late", 'PgPoolRetry 1h 1h');
    ok gets_in($httpd), 'connects, though the next attempt would be made in an hour';
    unlike $httpd->error_log, qr/PGP1002/, '... and no attempt has failed';
    $httpd->stop;
};

my @bad = (
    ["file:$dir/none",  'No such file', 'no file'],
    ["file:$dir",       'no regular file', 'a directory'],
    ["file:" . write_file("$dir/empty", "\n"), 'is empty', 'an empty file'],
    ["file:" . write_file("$dir/lines", "geheim-1\ngeheim-2\n"), 'more than the one line', 'two lines'],
    ["file:" . write_file("$dir/large", 'geheim' x 2000), 'too long', 'a long line'],
    ["file:" . write_file("$dir/closed", 'geheim', 0000), 'Permission denied', 'a file of others'],
    ["exec:$dir/none",  'No such file', 'no command'],
    ["exec:" . script('fails', 'echo geheim-late; exit 1'), 'has failed', 'a command that fails'],
    ["exec:" . script('says nothing', 'exit 0') =~ s/ /\\ /r, 'No such file', 'a path that is cut at a blank'],
);

for my $case (@bad) {
    my ($source, $why, $name) = @$case;
    subtest $name => sub {
        my $httpd = served_with($source);
        ok $httpd->wait_log(qr/PGP1002: .*PgPoolPassword: \S+: .*\Q$why\E/), "the log: $why";
        is probe($httpd, qw(acquire))->{status}, 200, 'and requests get an answer';
        is_secret($httpd);
        $httpd->stop;
    };
}

subtest 'a command that hangs delays no other pool' => sub {
    plan skip_all => 'no command runs' if !$has_commands;
    my $command = script('hangs', qq(echo \$\$ > "$dir/pid"\nsleep 1000 & wait));
    my $httpd = probed(<<"CONF");
PgPoolConninfo "$conninfo"
PgPoolConnectTimeout 3s
<PgPool hangs>
  PgPoolPassword exec:$command
  PgPoolMin 1
</PgPool>
<PgPool good>
  PgPoolPassword file:$file
  PgPoolMin 0
</PgPool>
CONF
    ok poll_until { -s "$dir/pid" }, 'it runs';
    my $pid = Httpd::slurp("$dir/pid") + 0;
    is told(probe($httpd, 'acquire=good'), 'status'), 0, 'meanwhile another pool connects';
    ok $httpd->wait_log(qr/PGP1002: pool hangs: cannot connect/), 'the attempt is given up';
    ok poll_until { !kill 0 => $pid }, 'the command is killed';
    is_secret($httpd);
    $httpd->stop;
};

subtest 'a command that leaves another one behind' => sub {
    plan skip_all => 'no command runs' if !$has_commands;
    my $command = script('leaves', qq(sleep 1000 & echo \$! > "$dir/left"\necho geheim-2));
    my $httpd = probed(<<"CONF");
PgPoolConninfo "$conninfo"
PgPoolConnectTimeout 1s
PgPoolPassword exec:$command
PgPoolMin 1
CONF
    ok poll_until { -s "$dir/left" }, 'it runs';
    my $pid = Httpd::slurp("$dir/left") + 0;
    ok $httpd->wait_log(qr/PGP1002: pool default: cannot connect/), 'the attempt is given up';
    ok poll_until { !kill 0 => $pid }, 'the process that it has left is killed';
    $httpd->stop;
};

subtest 'refused directives' => sub {
    my $httpd = Httpd->new(modules => ['pgpool']);
    my %wrong = (
        'geheim'                => qr/never the password itself/,
        'file:relative'         => qr/absolute path/,
        'exec:relative x'       => qr/absolute path/,
        'file:/one file:/other' => qr/one path/,
        ''                      => qr/never the password itself/,
    );
    for my $source (sort keys %wrong) {
        my $said = ($httpd->conf("PgPoolConninfo dbname=x\nPgPoolPassword $source")->config_test)[1];
        like $said, $wrong{$source}, "\"$source\"";
        unlike $said, qr/geheim/, '... and the complaint does not show it';
    }
};

done_testing;
