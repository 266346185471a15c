# The fuzz targets of t/fuzz, with their seeds: inputs that were once interesting, or wrong.

use strict;
use warnings;
use Test::More;

my $build = $ENV{PGPOOL_BUILD} || '.build';
my @target = map { m{/fuzz_(\w+)\.c\z} } glob 't/fuzz/fuzz_*.c';
ok @target > 0, 'there are targets';

for my $target (@target) {
    my @seed = glob "t/fuzz/seeds/$target/*";
    ok @seed > 0, "$target has seeds";
    my $output = qx{$build/t/fuzz_$target @seed 2>&1};
    is $?, 0, "... and stands them all" or diag $output;
}

done_testing;
