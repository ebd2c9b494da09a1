"""From a fit and its verdicts to a page that opens offline."""
