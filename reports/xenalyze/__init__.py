"""`xtrace dump --format xenalyze`: the lines of `xenalyze -a`, for scripts that read them (docs/xenalyze.md)."""
