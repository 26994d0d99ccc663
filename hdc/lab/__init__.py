"""The lab: trains networks, keeps records, compares them in tables and figures. It stands on the library."""
