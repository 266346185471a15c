# The core's unit tests, one subtest for each program of t/unit.

use strict;
use warnings;
use Test::More;

my $build = $ENV{PGPOOL_BUILD} || '.build';
my @programs = glob "$build/t/test_*";
ok @programs > 0, 'there are unit tests';

# libcheck writes TAP; this test passes it on line by line.
$ENV{CK_TAP_LOG_FILE_NAME} = '-';
$ENV{CK_VERBOSITY} = 'silent';
# A test may take a minute on an idle machine without a sanitizer; other machines get more time.
$ENV{CK_TIMEOUT_MULTIPLIER} = 5;

for my $program (@programs) {
    subtest $program =~ s{.*/}{}r => sub {
        open my $tap, '-|', $program or die "$program: $!";
        while (my $line = <$tap>) {
            if ($line =~ /\A(not )?ok \d+ - (.*)/) {
                ok !$1, $2;
            }
            elsif ($line =~ /\A1\.\.(\d+)/) {
                is(Test::More->builder->current_test, $1, 'all were run');
            }
            else {
                diag $line;
            }
        }
        close $tap;
        is $?, 0, 'exit status';
        done_testing;
    };
}

done_testing;
