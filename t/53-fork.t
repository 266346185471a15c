#!/usr/bin/perl

# A forked process has copies of its parent's connections.  Whatever functions it calls and memory
# it destroys, the request in the parent goes on undisturbed.

use PgPoolTest;
use File::Spec::Functions qw(rel2abs);
use Probe;

my $pg = postgres;
query($pg, 'CREATE TABLE kept (what text)');
my $conninfo = conninfo($pg);

for my $mpm (mpms()) {
    subtest $mpm => sub {
        query($pg, 'TRUNCATE kept');
        my $httpd = probed(<<"CONF", mpm => $mpm, threads => 2);
PgPoolConninfo "$conninfo"
PgPoolMin 1
PgPoolMax 1
CONF
        my $answer = probe($httpd, 'acquire', 'sql=BEGIN', q(sql=INSERT INTO kept VALUES ('row')), 'fork',
            'sql=COMMIT', 'again');
        tells $answer, { status => 0, forked => 'ESTOPPING', opened => 'ESTOPPING', queried => 'ESTOPPING', exit => 0, again => 0, same => 1 },
            'a forked process gets ESTOPPING';
        is query($pg, 'SELECT what FROM kept'), 'row', '... and the transaction goes on in the parent';
        tells probe($httpd, 'open', 'fork', 'state', 'close', 'acquire', 'fork'),
            { status => [0, 0], forked => [('ESTOPPING') x 2], tx => 'IDLE' }, 'without a request, too';
        unlike $httpd->error_log, qr/PGP10(?:06|07|12)/, 'no connection was lost or had to be cleaned up';
        $httpd->stop;
    };
}

subtest 'mpm_itk' => sub {
    my $itk = rel2abs($ENV{PGPOOL_BUILD} || '.build') . '/t/mpm_itk.so';
    my ($status, $text) = Httpd->new(conf => "LoadModule mpm_itk_module $itk\n")->config_test;
    isnt $status, 0, 'is refused';
    like $text, qr/PGP1014: mod_pgpool does not work with mpm_itk.*: load mpm_event, mpm_worker or mpm_prefork/,
        '... with the remedy';
};

done_testing;
