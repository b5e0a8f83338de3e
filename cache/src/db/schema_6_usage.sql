-- Schema 6. What making a result used of the machine, where that was measured: for planning.
ALTER TABLE results ADD COLUMN processor INTEGER;    -- microseconds of processor time
ALTER TABLE results ADD COLUMN memory_peak INTEGER;  -- bytes, the most at once
