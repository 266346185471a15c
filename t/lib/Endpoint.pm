package Endpoint;

# Locations with SetHandler pgpool-query, for a test's configuration.
#
#   endpoint('/item', 'SELECT * FROM item WHERE id = $1', '%{arg:id}')
#   section('/item', 'SetHandler pgpool-query', limit(POST => 'INSERT ...', '%{form:id}'))

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(pgpool_query endpoint section limit allowed);

# A PgPoolQuery directive, its arguments quoted as httpd reads them.
sub pgpool_query {
    return join ' ', 'PgPoolQuery', map { '"' . s/(["\\])/\\$1/gr . '"' } @_;
}

sub section {
    my ($path, @line) = @_;
    return join '', map { "$_\n" } "<Location $path>", (map { "  $_" } @line), '</Location>';
}

# A location with the handler; without arguments it has no statement.
sub endpoint {
    my ($path, @argument) = @_;
    return section($path, 'SetHandler pgpool-query', @argument ? pgpool_query(@argument) : ());
}

# The statement for these methods, given as "GET POST".
sub limit {
    my ($methods, @argument) = @_;
    return "<Limit $methods>\n    " . pgpool_query(@argument) . "\n  </Limit>";
}

# The methods in an answer's Allow, sorted.
sub allowed {
    my ($answer) = @_;
    return join ' ', sort split /,\s*/, $answer->{headers}{allow} // '';
}

1;
