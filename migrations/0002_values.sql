-- How a column's value becomes JSON, whoever made its type.
--
-- Capturing runs as the owner of this schema, so nothing that another role wrote may run in it. to_json and row_to_json
-- run a cast to json where the owner of a type made one, and `value::text` runs a cast to text. An output function is
-- safe: only a superuser makes one. So values of the types that PostgreSQL brings, and arrays and domains of these, are
-- printed by to_json, which looks for no cast there. A value of any other type is printed by its output function,
-- through format, and a composite is taken apart, attribute by attribute.

-- What a domain is made of, in the end; any other type is its own base.
CREATE FUNCTION realtime.base_type(type oid) RETURNS oid
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  base oid;
BEGIN
  LOOP
    SELECT t.typbasetype INTO base FROM pg_type t WHERE t.oid = type AND t.typtype = 'd';
    EXIT WHEN NOT FOUND;
    type := base;
  END LOOP;
  RETURN type;
END;
$$;
--> statement-breakpoint
-- The type of an array's elements; 0 for what is no array.
CREATE FUNCTION realtime.element_type(type oid) RETURNS oid
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT coalesce((
    SELECT e.oid FROM pg_type t JOIN pg_type e ON e.oid = t.typelem AND e.typarray = t.oid WHERE t.oid = type
  ), 0)
$$;
--> statement-breakpoint
-- The relation that describes a composite type; 0 for any other type.
CREATE FUNCTION realtime.composite_relation(type oid) RETURNS oid
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT coalesce((SELECT t.typrelid FROM pg_type t WHERE t.oid = type), 0)
$$;
--> statement-breakpoint
-- Whether to_json prints this type without looking for anybody's cast. Types below 16384 are those that PostgreSQL
-- brings. `numbers` as in realtime.watch: `text` sends bigint and numeric as strings, which to_json does not.
CREATE FUNCTION realtime.is_plain(type oid, numbers text) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  element oid;
BEGIN
  -- The common case, at a tenth of the price: a type that PostgreSQL brings holds no other's.
  IF type < 16384 THEN
    RETURN NOT (numbers = 'text' AND type IN (20, 1700, 1016, 1231));
  END IF;
  LOOP
    type := realtime.base_type(type);
    element := realtime.element_type(type);
    EXIT WHEN element = 0;
    type := element;
  END LOOP;
  RETURN type < 16384 AND NOT (numbers = 'text' AND type IN (20, 1700));
END;
$$;
--> statement-breakpoint
-- What to_json is given in place of `value`, an expression of this type. `leaves` are the values that it prints as they
-- are, and `types` their types: the statement checks them as it runs, see realtime.captured_types. `sample` is `value`
-- as that check reads it.
CREATE FUNCTION realtime.printed(
  type oid, value text, sample text, numbers text, OUT expression text, OUT leaves text[], OUT types oid[]
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  base oid;
  element oid;
  index text := 'i' || length(value);
  attribute record;
  part record;
  attributes text[] := '{}';
BEGIN
  leaves := '{}';
  types := '{}';
  IF realtime.is_plain(type, numbers) THEN
    expression := value;
    leaves := ARRAY[sample];
    types := ARRAY[type];
    RETURN;
  END IF;
  base := realtime.base_type(type);
  element := realtime.base_type(realtime.element_type(base));
  IF realtime.composite_relation(element) <> 0 THEN
    part := realtime.printed(element, format('(%s)[%s]', value, index), format('(%s)[1]', sample), numbers);
    leaves := part.leaves;
    types := part.types;
    -- Only one dimension can be walked so; an array of more is printed as one text.
    expression := format(
      'CASE WHEN %1$s IS NULL THEN NULL WHEN array_ndims(%1$s) > 1 THEN to_json(format(''%%s'', %1$s)) ELSE ('
        'SELECT coalesce(json_agg(%2$s ORDER BY %3$s), ''[]'') FROM generate_subscripts(%1$s, 1) %3$s) END',
      value, part.expression, index
    );
  ELSIF element <> 0 AND realtime.element_type(element) = 0 THEN
    expression := format('CASE WHEN %1$s IS NOT NULL THEN format(''%%s'', %1$s)::text[] END', value);
  ELSIF realtime.composite_relation(base) <> 0 THEN
    FOR attribute IN
      SELECT a.attname, a.atttypid FROM pg_attribute a
      WHERE a.attrelid = realtime.composite_relation(base) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
    LOOP
      part := realtime.printed(
        attribute.atttypid, format('(%s).%I', value, attribute.attname), format('(%s).%I', sample, attribute.attname),
        numbers
      );
      attributes := attributes || format('%s AS %I', part.expression, attribute.attname);
      leaves := leaves || part.leaves;
      types := types || part.types;
    END LOOP;
    -- num_nulls: a row of nothing but nulls IS NULL, and is an object all the same.
    expression := format(
      'CASE WHEN num_nulls(%s) = 0 THEN (SELECT row_to_json(x.*) FROM (SELECT %s) x) END',
      value, array_to_string(attributes, ', ')
    );
  ELSE
    expression := format('CASE WHEN %1$s IS NOT NULL THEN format(''%%s'', %1$s) END', value);
  END IF;
END;
$$;
--> statement-breakpoint
-- All types that a value of this type is made of: itself, a domain's base, elements, attributes, a range's bounds.
CREATE FUNCTION realtime.types_within(type oid) RETURNS SETOF oid
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  inner_type oid;
BEGIN
  RETURN NEXT type;
  FOR inner_type IN
    SELECT t.typbasetype FROM pg_type t WHERE t.oid = type AND t.typtype = 'd'
    UNION ALL SELECT realtime.element_type(type) WHERE realtime.element_type(type) <> 0
    UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = type
    UNION ALL SELECT a.atttypid FROM pg_attribute a
      WHERE a.attrelid = realtime.composite_relation(type) AND a.attnum > 0 AND NOT a.attisdropped
  LOOP
    RETURN QUERY SELECT realtime.types_within(inner_type);
  END LOOP;
END;
$$;
--> statement-breakpoint
-- The settings of a session that shape how these types are printed, as clauses of CREATE FUNCTION: whoever writes, the
-- value looks the same. Only those that matter, as each costs every call.
CREATE FUNCTION realtime.printing_settings(types oid[]) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  WITH within AS (
    SELECT DISTINCT w.type, t.typtype FROM unnest(types) u (type)
    CROSS JOIN LATERAL realtime.types_within(u.type) w (type) JOIN pg_type t ON t.oid = w.type
  ), opaque AS (
    -- A type of an extension may print anything, and a multirange does not tell here what it is made of.
    SELECT EXISTS (SELECT FROM within w WHERE w.typtype = 'm' OR (w.typtype = 'b' AND w.type >= 16384
      AND realtime.element_type(w.type) = 0)) AS any_setting
  )
  SELECT coalesce(string_agg(' SET ' || s.clause, '' ORDER BY s.clause), '')
  FROM (VALUES
    ('array_nulls = on', '{}'::oid[], true),
    ('bytea_output = hex', '{17}', false),
    ('datestyle = ''ISO, MDY''', '{1082,1083,1114,1184,1266}', false),
    ('extra_float_digits = 1', '{600,601,602,603,604,628,700,701,718}', false),
    ('intervalstyle = postgres', '{1186}', false),
    ('lc_monetary = ''C''', '{790}', false),
    ('quote_all_identifiers = off', '{24,2202,2203,2204,2205,2206,3734,3769,4089,4096,4191}', false),
    ('timezone = ''UTC''', '{1184,1266}', false)
  ) s (clause, printed_types, for_elements)
  WHERE (SELECT any_setting FROM opaque)
    OR EXISTS (SELECT FROM within w WHERE w.type = ANY (s.printed_types))
    OR (s.for_elements AND EXISTS (SELECT FROM within w WHERE realtime.element_type(w.type) <> 0))
$$;
--> statement-breakpoint
-- How long a value is as JSON; more than any row may have when it cannot be printed. For large values alone: a writer's
-- statement must not fail because the text of a row is too long for the server, and the catch costs time.
CREATE FUNCTION realtime.json_length(value anyelement, is_plain boolean) RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF is_plain THEN
    RETURN coalesce(octet_length(to_json(value)::text), 0);
  END IF;
  -- Six characters stand for one at most.
  RETURN octet_length(format('%s', value))::bigint * 6;
EXCEPTION WHEN OTHERS THEN
  RETURN 1000000000000;
END;
$$;
--> statement-breakpoint
-- Whether a row with this value, and with others of that length, may be printed. One function in place of a sum and a
-- comparison: each costs a writer's transaction, also where all values are small and none is called.
CREATE FUNCTION realtime.json_fits(value anyelement, is_plain boolean, others bigint) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN realtime.json_length(value, is_plain) + others < 500000000;
END;
$$;
