# gcc's analyzer, which follows the paths through the sources, finds no fault.

use strict;
use warnings;
use File::Temp ();
use Test::More;

my $cc = $ENV{PGPOOL_CC} || 'cc';
plan skip_all => 'the compiler is no gcc' if qx{$cc --version} !~ /Free Software Foundation/;
plan skip_all => 'once is enough'         if $ENV{PGPOOL_SANITIZE};

my $build = File::Temp->newdir;
delete @ENV{qw(MAKEFLAGS MFLAGS MAKELEVEL)};
my $output = qx{make --silent CC=$cc BUILD=$build CFLAGS='-O2 -fanalyzer' all 2>&1};
is $?, 0, 'the modules are built';
is $output, '', '... without a warning';

done_testing;
