-- The sample shop "Chợ Sen": tables, keys and comments, in an order that satisfies the foreign keys.
-- Money is in whole Vietnamese dong (VND); times are local (UTC+7) without a zone.

CREATE TABLE cities (
    city_id INTEGER PRIMARY KEY,
    name_vi VARCHAR NOT NULL UNIQUE,
    name_en VARCHAR NOT NULL UNIQUE,
    region VARCHAR NOT NULL CHECK (region IN ('north', 'central', 'south')),
    delivery_days INTEGER NOT NULL CHECK (delivery_days BETWEEN 1 AND 7)
);
COMMENT ON TABLE cities IS 'Cities the shop delivers to / Thành phố mà cửa hàng giao đến';
COMMENT ON COLUMN cities.name_vi IS 'Vietnamese name with diacritics, for example Đà Nẵng';
COMMENT ON COLUMN cities.name_en IS 'Name without diacritics, for example Da Nang';
COMMENT ON COLUMN cities.region IS 'north, central or south';
COMMENT ON COLUMN cities.delivery_days IS 'Promised delivery time in days';

CREATE TABLE stores (
    store_id INTEGER PRIMARY KEY,
    name VARCHAR NOT NULL UNIQUE,
    city_id INTEGER NOT NULL REFERENCES cities (city_id),
    opened_on DATE NOT NULL,
    floor_area_m2 INTEGER NOT NULL
);
COMMENT ON TABLE stores IS 'Physical stores / Cửa hàng';
COMMENT ON COLUMN stores.floor_area_m2 IS 'Sales floor in square metres';

CREATE TABLE employees (
    employee_id INTEGER PRIMARY KEY,
    full_name VARCHAR NOT NULL,
    role VARCHAR NOT NULL CHECK (role IN ('director', 'store_manager', 'sales', 'warehouse')),
    store_id INTEGER REFERENCES stores (store_id),
    manager_id INTEGER REFERENCES employees (employee_id),
    hired_on DATE NOT NULL,
    left_on DATE,
    monthly_salary_vnd BIGINT NOT NULL
);
COMMENT ON TABLE employees IS 'Staff, present and past / Nhân viên';
COMMENT ON COLUMN employees.store_id IS 'NULL for the head office';
COMMENT ON COLUMN employees.manager_id IS 'Direct manager; NULL for the director';
COMMENT ON COLUMN employees.left_on IS 'NULL while still employed';
COMMENT ON COLUMN employees.monthly_salary_vnd IS 'Gross monthly salary in VND';

CREATE TABLE categories (
    category_id INTEGER PRIMARY KEY,
    name_vi VARCHAR NOT NULL UNIQUE,
    name_en VARCHAR NOT NULL UNIQUE,
    parent_id INTEGER REFERENCES categories (category_id)
);
COMMENT ON TABLE categories IS 'Two-level product categories / Ngành hàng hai cấp';
COMMENT ON COLUMN categories.parent_id IS 'NULL for a top-level category';

CREATE TABLE suppliers (
    supplier_id INTEGER PRIMARY KEY,
    name VARCHAR NOT NULL UNIQUE,
    city_id INTEGER NOT NULL REFERENCES cities (city_id),
    contact_email VARCHAR,
    lead_time_days INTEGER NOT NULL
);
COMMENT ON TABLE suppliers IS 'Suppliers / Nhà cung cấp';
COMMENT ON COLUMN suppliers.contact_email IS 'NULL when only reachable by phone';
COMMENT ON COLUMN suppliers.lead_time_days IS 'Usual days between purchase order and arrival';

CREATE TABLE products (
    product_id INTEGER PRIMARY KEY,
    sku VARCHAR NOT NULL UNIQUE,
    name_vi VARCHAR NOT NULL,
    name_en VARCHAR NOT NULL,
    category_id INTEGER NOT NULL REFERENCES categories (category_id),
    supplier_id INTEGER NOT NULL REFERENCES suppliers (supplier_id),
    list_price_vnd BIGINT NOT NULL CHECK (list_price_vnd > 0),
    unit_cost_vnd BIGINT NOT NULL CHECK (unit_cost_vnd > 0),
    launched_on DATE NOT NULL,
    discontinued_on DATE
);
COMMENT ON TABLE products IS 'Products on sale, present and past / Sản phẩm';
COMMENT ON COLUMN products.category_id IS 'Always a second-level category';
COMMENT ON COLUMN products.list_price_vnd IS 'List price in 2026, VND, before any discount';
COMMENT ON COLUMN products.unit_cost_vnd IS 'Purchase cost of one unit, VND';
COMMENT ON COLUMN products.discontinued_on IS 'NULL while on sale';

CREATE TABLE promotions (
    promotion_id INTEGER PRIMARY KEY,
    code VARCHAR NOT NULL UNIQUE,
    description_vi VARCHAR NOT NULL,
    description_en VARCHAR NOT NULL,
    discount_percent INTEGER NOT NULL CHECK (discount_percent BETWEEN 1 AND 50),
    starts_on DATE NOT NULL,
    ends_on DATE NOT NULL
);
COMMENT ON TABLE promotions IS 'Discount codes / Mã giảm giá';
COMMENT ON COLUMN promotions.ends_on IS 'Last day the code is valid';

CREATE TABLE customers (
    customer_id INTEGER PRIMARY KEY,
    full_name VARCHAR NOT NULL,
    email VARCHAR,
    gender VARCHAR CHECK (gender IN ('female', 'male', 'other')),
    birth_year INTEGER,
    city_id INTEGER NOT NULL REFERENCES cities (city_id),
    registered_on DATE NOT NULL,
    loyalty_tier VARCHAR NOT NULL CHECK (loyalty_tier IN ('bronze', 'silver', 'gold')),
    preferred_language VARCHAR NOT NULL CHECK (preferred_language IN ('vi', 'en'))
);
COMMENT ON TABLE customers IS 'Registered customers (all invented) / Khách hàng (hoàn toàn hư cấu)';
COMMENT ON COLUMN customers.gender IS 'NULL when not given';
COMMENT ON COLUMN customers.birth_year IS 'NULL when not given';
COMMENT ON COLUMN customers.loyalty_tier IS 'By lifetime spend: gold is the top 5 %, silver the next 15 %';
COMMENT ON COLUMN customers.preferred_language IS 'vi (tiếng Việt) or en (English)';

CREATE TABLE orders (
    order_id INTEGER PRIMARY KEY,
    customer_id INTEGER NOT NULL REFERENCES customers (customer_id),
    channel VARCHAR NOT NULL CHECK (channel IN ('store', 'web', 'phone')),
    store_id INTEGER REFERENCES stores (store_id),
    employee_id INTEGER REFERENCES employees (employee_id),
    promotion_id INTEGER REFERENCES promotions (promotion_id),
    ordered_at TIMESTAMP NOT NULL,
    status VARCHAR NOT NULL
        CHECK (status IN ('processing', 'shipped', 'delivered', 'cancelled', 'returned')),
    shipping_fee_vnd BIGINT NOT NULL CHECK (shipping_fee_vnd >= 0)
);
COMMENT ON TABLE orders IS 'Customer orders / Đơn hàng';
COMMENT ON COLUMN orders.channel IS 'store (tại cửa hàng), web (trực tuyến) or phone (điện thoại)';
COMMENT ON COLUMN orders.store_id IS 'NULL unless channel is store';
COMMENT ON COLUMN orders.employee_id IS 'Who sold it; NULL for web orders';
COMMENT ON COLUMN orders.promotion_id IS 'NULL when no discount code was used';
COMMENT ON COLUMN orders.status IS 'returned means every line came back; see returns for single lines';
COMMENT ON COLUMN orders.shipping_fee_vnd IS '0 in store and from 500,000 VND of goods, otherwise 30,000';

CREATE TABLE order_items (
    order_id INTEGER NOT NULL REFERENCES orders (order_id),
    line_number INTEGER NOT NULL,
    product_id INTEGER NOT NULL REFERENCES products (product_id),
    quantity INTEGER NOT NULL CHECK (quantity > 0),
    unit_price_vnd BIGINT NOT NULL,
    discount_percent INTEGER NOT NULL CHECK (discount_percent BETWEEN 0 AND 50),
    line_total_vnd BIGINT NOT NULL,
    PRIMARY KEY (order_id, line_number)
);
COMMENT ON TABLE order_items IS 'Lines of an order / Chi tiết đơn hàng';
COMMENT ON COLUMN order_items.unit_price_vnd IS 'List price of one unit on the day, before the discount';
COMMENT ON COLUMN order_items.line_total_vnd IS 'quantity x unit price less the discount, VND';

CREATE TABLE payments (
    payment_id INTEGER PRIMARY KEY,
    order_id INTEGER NOT NULL REFERENCES orders (order_id),
    method VARCHAR NOT NULL
        CHECK (method IN ('cash', 'card', 'e_wallet', 'bank_transfer', 'cash_on_delivery')),
    amount_vnd BIGINT NOT NULL,
    paid_at TIMESTAMP NOT NULL,
    status VARCHAR NOT NULL CHECK (status IN ('paid', 'failed', 'refunded'))
);
COMMENT ON TABLE payments IS 'Payment attempts; a failed one may be followed by another / Thanh toán';
COMMENT ON COLUMN payments.amount_vnd IS 'Goods after discount plus shipping, VND';

CREATE TABLE returns (
    return_id INTEGER PRIMARY KEY,
    order_id INTEGER NOT NULL,
    line_number INTEGER NOT NULL,
    quantity INTEGER NOT NULL CHECK (quantity > 0),
    reason VARCHAR NOT NULL,
    reason_vi VARCHAR NOT NULL,
    returned_on DATE NOT NULL,
    refund_vnd BIGINT NOT NULL,
    FOREIGN KEY (order_id, line_number) REFERENCES order_items (order_id, line_number)
);
COMMENT ON TABLE returns IS 'Returned order lines, within 30 days of the order / Hàng trả lại';
COMMENT ON COLUMN returns.reason IS 'damaged, wrong_item, not_as_described, changed_mind or late';
COMMENT ON COLUMN returns.refund_vnd IS 'Paid back to the customer, VND';

CREATE TABLE reviews (
    review_id INTEGER PRIMARY KEY,
    product_id INTEGER NOT NULL REFERENCES products (product_id),
    customer_id INTEGER NOT NULL REFERENCES customers (customer_id),
    rating INTEGER NOT NULL CHECK (rating BETWEEN 1 AND 5),
    language VARCHAR NOT NULL CHECK (language IN ('vi', 'en')),
    body VARCHAR,
    reviewed_at TIMESTAMP NOT NULL
);
COMMENT ON TABLE reviews IS 'Product reviews by customers who bought the product / Đánh giá';
COMMENT ON COLUMN reviews.rating IS '1 (worst) to 5 (best) stars';
COMMENT ON COLUMN reviews.body IS 'NULL when only stars were given';

CREATE TABLE web_sessions (
    session_id INTEGER PRIMARY KEY,
    customer_id INTEGER REFERENCES customers (customer_id),
    started_at TIMESTAMP NOT NULL,
    duration_seconds INTEGER NOT NULL CHECK (duration_seconds >= 0),
    device VARCHAR NOT NULL CHECK (device IN ('mobile', 'desktop', 'tablet')),
    traffic_source VARCHAR NOT NULL
        CHECK (traffic_source IN ('direct', 'search', 'social', 'email', 'ads')),
    landing_page VARCHAR NOT NULL
);
COMMENT ON TABLE web_sessions IS 'Visits to the web shop since tracking began on 2026-01-01 / Phiên truy cập';
COMMENT ON COLUMN web_sessions.customer_id IS 'NULL when the visitor was not signed in';
COMMENT ON COLUMN web_sessions.duration_seconds IS 'From first to last event; 0 for a bounce';

CREATE TABLE web_events (
    event_id INTEGER PRIMARY KEY,
    session_id INTEGER NOT NULL REFERENCES web_sessions (session_id),
    occurred_at TIMESTAMP NOT NULL,
    event_type VARCHAR NOT NULL CHECK (event_type IN
        ('page_view', 'search', 'product_view', 'add_to_cart', 'checkout', 'purchase')),
    product_id INTEGER REFERENCES products (product_id),
    search_query VARCHAR,
    order_id INTEGER REFERENCES orders (order_id)
);
COMMENT ON TABLE web_events IS 'What happened in a visit / Sự kiện trong phiên truy cập';
COMMENT ON COLUMN web_events.product_id IS 'Set for product_view and add_to_cart';
COMMENT ON COLUMN web_events.search_query IS 'Set for search, as typed';
COMMENT ON COLUMN web_events.order_id IS 'Set for purchase';
