"""Make the sample shop: ``data/shop.duckdb`` and the three CSV files in ``data/shop_small/``.

    python data/make_shop.py --output data/shop.duckdb --seed 20260930

The tables are in ``shop_schema.sql`` and the words in ``shop_vocabulary.yaml``, both beside this
file. The same seed gives the same rows: every draw comes from :meth:`random.Random.random`, whose
sequence Python promises to keep from one version to the next. The *bytes* of a DuckDB file
do change with DuckDB's version, so compare databases by :func:`content_hash`.

People, suppliers and sales are invented. Money is in whole Vietnamese dong (VND).
"""

from __future__ import annotations

import argparse
import bisect
import csv
import hashlib
import itertools
import json
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import duckdb
import pyarrow as pa
import yaml

HERE = Path(__file__).resolve().parent
SEED = 20260930
FIRST_DAY, LAST_DAY = date(2024, 1, 1), date(2026, 9, 30)
TRACKING_DAY = date(2026, 1, 1)
CUSTOMERS, ORDERS, BROWSING_SESSIONS = 2500, 9000, 12000
FREE_SHIPPING_VND, SHIPPING_FEE_VND = 500_000, 30_000
RETURN_DAYS = 30
LUNAR_NEW_YEARS = (date(2024, 2, 10), date(2025, 1, 29), date(2026, 2, 17))
MID_AUTUMNS = (date(2024, 9, 17), date(2025, 10, 6), date(2026, 9, 25))
SELF_REFERENCING = ("employees", "categories")  # inserted row by row, so that parents come first
DOUBLE_DAYS = ((9, 9), (10, 10), (11, 11), (12, 12))

# Shoppers by hour of the day, 0 to 23: a peak at lunch and a higher one after dinner.
WEB_HOURS = (4, 2, 1, 1, 1, 2, 4, 7, 10, 12, 13, 16, 15, 12, 11, 11, 11, 12, 14, 18, 24, 26, 19, 10)
STORE_HOURS = (0, 0, 0, 0, 0, 0, 0, 0, 4, 8, 11, 13, 10, 8, 8, 9, 11, 14, 17, 18, 13, 0, 0, 0)

Row = tuple[Any, ...]
T = TypeVar("T")


class Store(NamedTuple):
    store_id: int
    name: str
    city_id: int
    opened_on: date
    floor_area_m2: int


class Employee(NamedTuple):
    employee_id: int
    full_name: str
    role: str
    store_id: int | None
    manager_id: int | None
    hired_on: date
    left_on: date | None
    monthly_salary_vnd: int


class Product(NamedTuple):
    product_id: int
    sku: str
    name_vi: str
    name_en: str
    category_id: int
    supplier_id: int
    list_price_vnd: int
    unit_cost_vnd: int
    launched_on: date
    discontinued_on: date | None


class Promotion(NamedTuple):
    promotion_id: int
    code: str
    description_vi: str
    description_en: str
    discount_percent: int
    starts_on: date
    ends_on: date


class Customer(NamedTuple):
    customer_id: int
    full_name: str
    email: str | None
    gender: str | None
    birth_year: int | None
    city_id: int
    registered_on: date
    loyalty_tier: str
    preferred_language: str


class Order(NamedTuple):
    order_id: int
    customer_id: int
    channel: str
    store_id: int | None
    employee_id: int | None
    promotion_id: int | None
    ordered_at: datetime
    status: str
    shipping_fee_vnd: int


class Item(NamedTuple):
    order_id: int
    line_number: int
    product_id: int
    quantity: int
    unit_price_vnd: int
    discount_percent: int
    line_total_vnd: int


class Dice:
    """Random draws built on ``random()`` alone, so that a seed means the same rows for good."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def chance(self, probability: float) -> bool:
        return self._random() < probability

    def whole(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self._random() * (high - low + 1))

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self._random() * len(options))]

    def weighted(self, options: Sequence[T], cumulative: Sequence[float]) -> T:
        """One option, by running totals of the weights (``itertools.accumulate``)."""
        return options[bisect.bisect_right(cumulative, self._random() * cumulative[-1])]

    def exponential(self, mean: float) -> float:
        return -mean * math.log(1.0 - self._random())

    def pareto(self, shape: float) -> float:
        """A heavy-tailed weight from 1 to 30: few customers buy most goods, none buys them all."""
        return min(30.0, math.pow(1.0 - self._random(), -1.0 / shape))


class Shop:
    """Every table of the sample shop, built in the order of its foreign keys."""

    def __init__(self, seed: int) -> None:
        self.dice = Dice(seed)
        words = (HERE / "shop_vocabulary.yaml").read_text(encoding="utf-8")
        self.words: dict[str, Any] = yaml.safe_load(words)
        self.city_ids = {city[1]: row for row, city in enumerate(self.words["cities"], 1)}
        self.stores = self._stores()
        self.employees = self._employees()
        self.suppliers = self._suppliers()
        self.categories: list[Row] = []
        self.products: list[Product] = []
        self._catalogue()
        self.promotions = [Promotion(row, *p) for row, p in enumerate(self.words["promotions"], 1)]
        self.customers = self._customers()
        self.orders: list[Order] = []
        self.items: list[Item] = []
        self._orders()
        self._tiers()
        self.payments = self._payments()
        self.returns = self._returns()
        self.reviews = self._reviews()
        self.sessions: list[Row] = []
        self.events: list[Row] = []
        self._web()

    def tables(self) -> dict[str, Sequence[Row]]:
        """Rows by table name, parents before children."""
        cities = [(row, *city[:4]) for row, city in enumerate(self.words["cities"], 1)]
        return {
            "cities": cities,
            "stores": self.stores,
            "employees": self.employees,
            "categories": self.categories,
            "suppliers": self.suppliers,
            "products": self.products,
            "promotions": self.promotions,
            "customers": self.customers,
            "orders": self.orders,
            "order_items": self.items,
            "payments": self.payments,
            "returns": self.returns,
            "reviews": self.reviews,
            "web_sessions": self.sessions,
            "web_events": self.events,
        }

    def _day(self, first: date, last: date) -> date:
        return first + timedelta(days=self.dice.whole(0, (last - first).days))

    def _moment(self, day: date, hours: Sequence[int]) -> datetime:
        hour = self.dice.weighted(range(24), list(itertools.accumulate(hours)))
        return datetime.combine(day, time(hour, self.dice.whole(0, 59), self.dice.whole(0, 59)))

    def _name(self, gender: str, language: str) -> str:
        names = self.words["names"]
        if language == "en":
            given = self.dice.pick(names["en_given_" + gender])
            return f"{given} {self.dice.pick(names['en_family'])}"
        family, weights = zip(*names["vi_family"], strict=True)
        parts = (
            self.dice.weighted(family, list(itertools.accumulate(weights))),
            self.dice.pick(names["vi_middle_" + gender]),
            self.dice.pick(names["vi_given_" + gender]),
        )
        return " ".join(parts)

    def _stores(self) -> list[Store]:
        return [
            Store(row, name, self.city_ids[city], opened, area)
            for row, (name, city, opened, area) in enumerate(self.words["stores"], 1)
        ]

    def _employees(self) -> list[Employee]:
        staff = [
            Employee(1, "Lê Minh Châu", "director", None, None, date(2018, 1, 2), None, 85_000_000)
        ]
        for store in self.stores:
            manager_id = len(staff) + 1
            size = 4 + store.floor_area_m2 // 45
            for role in ("store_manager", "warehouse", *("sales",) * size):
                manages = role == "store_manager"
                # The opening team is never allowed to leave: each store always has someone to sell.
                opening_team = manages or self.dice.chance(0.4) or len(staff) == manager_id + 1
                hired = store.opened_on if opening_team else self._day(store.opened_on, LAST_DAY)
                leaves = not opening_team and self.dice.chance(0.3)
                salary = {"store_manager": 24, "warehouse": 10, "sales": 9}[role]
                staff.append(
                    Employee(
                        len(staff) + 1,
                        self._name(self.dice.pick(("female", "male")), "vi"),
                        role,
                        store.store_id,
                        1 if manages else manager_id,
                        hired,
                        self._day(hired, LAST_DAY) if leaves else None,
                        (salary * 10 + self.dice.whole(0, 35)) * 100_000,
                    )
                )
        return staff

    def _suppliers(self) -> list[Row]:
        rows: list[Row] = []
        for row, (name, city) in enumerate(self.words["suppliers"], 1):
            email = f"supplier{row}@example.com" if self.dice.chance(0.8) else None
            rows.append((row, name, self.city_ids[city], email, self.dice.whole(3, 21)))
        return rows

    def _catalogue(self) -> None:
        supplier_ids = {supplier[1]: supplier[0] for supplier in self.suppliers}
        for parent in self.words["categories"]:
            parent_id = len(self.categories) + 1
            self.categories.append((parent_id, parent["vi"], parent["en"], None))
            for child in parent["children"]:
                category_id = len(self.categories) + 1
                self.categories.append((category_id, child["vi"], child["en"], parent_id))
                for item in child["items"]:
                    self._product_line(category_id, supplier_ids[child["supplier"]], item)

    def _product_line(self, category_id: int, supplier_id: int, item: list[Any]) -> None:
        name_vi, name_en, thousands, variants = item
        launched = date(2023, 6, 1)
        if self.dice.chance(0.25):
            launched = self._day(FIRST_DAY, date(2026, 3, 31))
        for variant_vi, variant_en, factor in variants:
            product_id = len(self.products) + 1
            price = round(thousands * factor) * 1000
            margin = 0.30 + 0.25 * self.dice.whole(0, 100) / 100
            # Nothing leaves the range before every product launched in 2026 is on the shelf.
            ends = self._day(date(2026, 4, 1), LAST_DAY) if self.dice.chance(0.06) else None
            self.products.append(
                Product(
                    product_id,
                    f"CS-{category_id:02d}-{product_id:03d}",
                    f"{name_vi}, {variant_vi}",
                    f"{name_en}, {variant_en}",
                    category_id,
                    supplier_id,
                    price,
                    round(price * (1 - margin) / 500) * 500,
                    launched,
                    ends,
                )
            )

    def _customers(self) -> list[Customer]:
        city_weights = list(itertools.accumulate(city[4] for city in self.words["cities"]))
        rows: list[Customer] = []
        for customer_id in range(1, CUSTOMERS + 1):
            language = "en" if self.dice.chance(0.12) else "vi"
            gender = "female" if self.dice.chance(0.58) else "male"
            told = self.dice.chance(0.9)
            age = 18 + min(52, int(self.dice.exponential(15)))
            # A third joined before the first order in the data, the rest as the shop grew.
            joined = self._day(date(2023, 1, 1), date(2023, 12, 31))
            if customer_id > CUSTOMERS // 3:
                joined = self._day(FIRST_DAY, LAST_DAY - timedelta(days=10))
            rows.append(
                Customer(
                    customer_id,
                    self._name(gender, language),
                    f"customer{customer_id}@example.com" if self.dice.chance(0.86) else None,
                    gender if told else None,
                    2026 - age if self.dice.chance(0.8) else None,
                    self.dice.weighted(range(1, len(city_weights) + 1), city_weights),
                    joined,
                    "bronze",
                    language,
                )
            )
        return rows

    def _orders(self) -> None:
        days = [FIRST_DAY + timedelta(days=n) for n in range((LAST_DAY - FIRST_DAY).days + 1)]
        day_weights = list(itertools.accumulate(map(day_weight, days)))
        dates = sorted(self.dice.weighted(days, day_weights) for _ in range(ORDERS))
        buyer_weights = list(itertools.accumulate(self.dice.pareto(1.1) for _ in self.customers))
        # Zipf's law, flattened at the top, over a shuffled shelf: few products sell most.
        shelf = sorted(self.products, key=lambda _: self.dice.whole(0, 10**9))
        shelf_weights = list(itertools.accumulate(1 / (rank + 4) for rank in range(len(shelf))))
        for order_id, day in enumerate(dates, 1):
            customer = self.dice.weighted(self.customers, buyer_weights)
            while customer.registered_on > day:
                customer = self.dice.weighted(self.customers, buyer_weights)
            promotion = self._promotion(day)
            lines = 1 + min(7, int(self.dice.exponential(1.1)))
            chosen: dict[int, Product] = {}
            in_season = [p for p in self.products if appeal(p, day) == 1.0]
            while len(chosen) < lines:
                product = self.dice.weighted(shelf, shelf_weights)
                if in_season and self.dice.chance(0.15):
                    product = self.dice.pick(in_season)
                on_sale = product.launched_on <= day <= (product.discontinued_on or LAST_DAY)
                if on_sale and self.dice.chance(appeal(product, day)):
                    chosen[product.product_id] = product
            items = [
                self._item(order_id, line, product, day, promotion)
                for line, product in enumerate(chosen.values(), 1)
            ]
            self.items += items
            goods_vnd = sum(item.line_total_vnd for item in items)
            self.orders.append(self._order(order_id, customer, day, promotion, goods_vnd))

    def _promotion(self, day: date) -> Promotion | None:
        welcome, *seasonal = self.promotions
        running = [p for p in seasonal if p.starts_on <= day <= p.ends_on]
        if running and self.dice.chance(0.55):
            return running[0]
        return welcome if self.dice.chance(0.06) else None

    def _item(
        self, order_id: int, line: int, product: Product, day: date, promotion: Promotion | None
    ) -> Item:
        # Prices rose by about four per cent a year up to the list price of 2026.
        price = round(product.list_price_vnd * (0.92 + 0.04 * (day.year - 2024)) / 1000) * 1000
        dear = product.list_price_vnd > 400_000
        quantity = 1 + min(19, int(self.dice.exponential(0.25 if dear else 0.9)))
        percent = promotion.discount_percent if promotion else 0
        total = round(quantity * price * (100 - percent) / 100)
        return Item(order_id, line, product.product_id, quantity, price, percent, total)

    def _order(
        self, order_id: int, customer: Customer, day: date, promotion: Promotion | None, goods: int
    ) -> Order:
        local = [s for s in self.stores if s.city_id == customer.city_id and s.opened_on <= day]
        draw = self.dice.whole(1, 100)
        web_share = 26 + 9 * (day.year - 2024)
        channel = "web" if draw <= web_share else "phone" if draw > 92 or not local else "store"
        store = self.dice.pick(local) if channel == "store" else None
        seller_id = None
        if channel != "web":
            sellers = [
                e.employee_id
                for e in self.employees
                if e.role == "sales"
                and e.hired_on <= day <= (e.left_on or LAST_DAY)
                and (store is None or e.store_id == store.store_id)
            ]
            seller_id = self.dice.pick(sellers)
        free = channel == "store" or goods >= FREE_SHIPPING_VND
        return Order(
            order_id,
            customer.customer_id,
            channel,
            store.store_id if store else None,
            seller_id,
            promotion.promotion_id if promotion else None,
            self._moment(day, STORE_HOURS if channel == "store" else WEB_HOURS),
            self._status(channel, day),
            0 if free else SHIPPING_FEE_VND,
        )

    def _status(self, channel: str, day: date) -> str:
        draw = self.dice.whole(1, 1000)
        if channel == "store":
            return "returned" if draw <= 15 else "delivered"
        age_days = (LAST_DAY - day).days
        if draw <= 60:
            return "cancelled"
        if age_days <= 1:
            return "processing"
        if age_days <= 4:
            return "shipped"
        return "returned" if draw <= 90 else "delivered"

    def _tiers(self) -> None:
        """Set each customer's tier by what they spent on orders that were kept."""
        owners = {o.order_id: o.customer_id for o in self.orders if kept(o)}
        spent = [0] * (CUSTOMERS + 1)
        for item in self.items:
            if item.order_id in owners:
                spent[owners[item.order_id]] += item.line_total_vnd
        ranked = sorted(self.customers, key=lambda c: (-spent[c.customer_id], c.customer_id))
        for place, customer in enumerate(ranked[: CUSTOMERS // 5]):
            tier = "gold" if place < CUSTOMERS // 20 else "silver"
            self.customers[customer.customer_id - 1] = customer._replace(loyalty_tier=tier)

    def _payments(self) -> list[Row]:
        goods: dict[int, int] = {}
        for item in self.items:
            goods[item.order_id] = goods.get(item.order_id, 0) + item.line_total_vnd
        at_store = (("cash", "card", "e_wallet"), (40, 70, 100))
        remote = (("cash_on_delivery", "e_wallet", "bank_transfer", "card"), (38, 72, 88, 100))
        rows: list[Row] = []
        for order in self.orders:
            method = self.dice.weighted(*(at_store if order.channel == "store" else remote))
            amount = goods[order.order_id] + order.shipping_fee_vnd
            moment = order.ordered_at + timedelta(seconds=self.dice.whole(20, 900))
            if method in ("card", "e_wallet") and self.dice.chance(0.05):
                rows.append((len(rows) + 1, order.order_id, method, amount, moment, "failed"))
                moment += timedelta(seconds=self.dice.whole(30, 300))
            if method == "cash_on_delivery":
                moment += timedelta(days=self.dice.whole(1, 4))
                if order.status in ("cancelled", "processing", "shipped"):
                    continue
            status = "refunded" if order.status in ("cancelled", "returned") else "paid"
            rows.append((len(rows) + 1, order.order_id, method, amount, moment, status))
        return rows

    def _returns(self) -> list[Row]:
        reasons = self.words["return_reasons"]
        weights = list(itertools.accumulate(reason[2] for reason in reasons))
        rows: list[Row] = []
        for item in self.items:
            order = self.orders[item.order_id - 1]
            whole_order = order.status == "returned"
            if not whole_order and not (order.status == "delivered" and self.dice.chance(0.022)):
                continue
            reason, reason_vi, _ = self.dice.weighted(reasons, weights)
            quantity = item.quantity if whole_order else self.dice.whole(1, item.quantity)
            day = order.ordered_at.date() + timedelta(days=self.dice.whole(2, RETURN_DAYS))
            refund = round(item.line_total_vnd * quantity / item.quantity)
            line = (item.order_id, item.line_number, quantity, reason, reason_vi)
            rows.append((len(rows) + 1, *line, min(day, LAST_DAY), refund))
        return rows

    def _reviews(self) -> list[Row]:
        lines_of_return = {(row[1], row[2]) for row in self.returns}
        rows: list[Row] = []
        for item in self.items:
            order = self.orders[item.order_id - 1]
            if order.status not in ("delivered", "returned") or not self.dice.chance(0.2):
                continue
            moment = order.ordered_at + timedelta(
                days=2 + int(self.dice.exponential(9)), minutes=37
            )
            if moment.date() > LAST_DAY:
                continue
            unhappy = (item.order_id, item.line_number) in lines_of_return
            cumulative = (45, 70, 85, 95, 100) if unhappy else (3, 7, 17, 43, 100)
            rating = self.dice.weighted(range(1, 6), cumulative)
            customer = self.customers[order.customer_id - 1]
            language = customer.preferred_language
            body = self._review_text(language, rating) if self.dice.chance(0.78) else None
            key = (item.product_id, customer.customer_id)
            rows.append((len(rows) + 1, *key, rating, language, body, moment))
        return rows

    def _review_text(self, language: str, rating: int) -> str:
        mood = "good" if rating >= 4 else "fair" if rating == 3 else "poor"
        words = self.words["reviews"][language][mood]
        parts = [self.dice.pick(words["openings"]), self.dice.pick(words["details"])]
        if self.dice.chance(0.4):
            parts.append(self.dice.pick(words["closings"]))
        return " ".join(parts)

    def _web(self) -> None:
        """Visits in time order: one for each web order since tracking began, and the browsing."""
        days = [TRACKING_DAY + timedelta(days=n) for n in range((LAST_DAY - TRACKING_DAY).days + 1)]
        day_weights = list(itertools.accumulate(map(day_weight, days)))
        visits: list[tuple[datetime, Order | None]] = [
            (o.ordered_at - timedelta(seconds=self.dice.whole(120, 2400)), o)
            for o in self.orders
            if o.channel == "web" and o.ordered_at.date() > TRACKING_DAY
        ]
        for _ in range(BROWSING_SESSIONS):
            visits.append((self._moment(self.dice.weighted(days, day_weights), WEB_HOURS), None))
        bought: dict[int, list[int]] = {}
        for item in self.items:
            bought.setdefault(item.order_id, []).append(item.product_id)
        for start, order in sorted(visits, key=lambda visit: visit[0]):
            basket = bought[order.order_id] if order else []
            self._visit(start, order, basket)

    def _visit(self, start: datetime, order: Order | None, basket: list[int]) -> None:
        dice = self.dice
        session_id = len(self.sessions) + 1
        member = None
        if order:
            member = order.customer_id
        elif dice.chance(0.35):
            known = dice.pick(self.customers)
            member = known.customer_id if known.registered_on <= start.date() else None
        steps = purchase_steps(basket) if order else self._browsing_steps(start.date())
        gaps = [dice.exponential(40) for _ in steps[1:]]
        moments = [0.0, *itertools.accumulate(gaps)]
        # A buyer's last event is the order itself, so that visit is stretched to end on time.
        seconds = (order.ordered_at - start).total_seconds() if order else moments[-1]
        stretch = seconds / moments[-1] if moments[-1] else 0.0
        pages, page_weights = zip(*self.words["landing_pages"], strict=True)
        self.sessions.append(
            (
                session_id,
                member,
                start,
                int(seconds),
                dice.weighted(("mobile", "desktop", "tablet"), (68, 95, 100)),
                dice.weighted(
                    ("direct", "search", "social", "email", "ads"), (24, 58, 80, 88, 100)
                ),
                dice.weighted(pages, list(itertools.accumulate(page_weights))),
            )
        )
        for offset, (event, product_id, query) in zip(moments, steps, strict=True):
            moment = start + timedelta(seconds=int(offset * stretch))
            order_id = order.order_id if order and event == "purchase" else None
            row = (len(self.events) + 1, session_id, moment, event, product_id, query, order_id)
            self.events.append(row)

    def _browsing_steps(self, day: date) -> list[tuple[str, int | None, str | None]]:
        """A visit that buys nothing; two in five look at a single page (a bounce)."""
        dice = self.dice
        steps: list[tuple[str, int | None, str | None]] = [("page_view", None, None)]
        if dice.chance(0.4):
            return steps
        if dice.chance(0.35):
            steps.append(("search", None, dice.pick(self.words["searches"])))
        for _ in range(1 + min(9, int(dice.exponential(1.6)))):
            product = dice.pick(self.products)
            if product.launched_on <= day <= (product.discontinued_on or LAST_DAY):
                steps.append(("product_view", product.product_id, None))
                if dice.chance(0.12):
                    steps.append(("add_to_cart", product.product_id, None))
        if steps[-1][0] == "add_to_cart" and dice.chance(0.35):
            steps.append(("checkout", None, None))
        return steps


def purchase_steps(basket: Iterable[int]) -> list[tuple[str, int | None, str | None]]:
    """The events of a visit that ends in an order for the products in the basket."""
    steps: list[tuple[str, int | None, str | None]] = [("page_view", None, None)]
    for product_id in basket:
        steps += [("product_view", product_id, None), ("add_to_cart", product_id, None)]
    return [*steps, ("checkout", None, None), ("purchase", None, None)]


def kept(order: Order) -> bool:
    """Whether an order counts as a sale."""
    return order.status not in ("cancelled", "returned")


def day_weight(day: date) -> float:
    """How busy a day is: growth, weekends, the run-up to Tết and Mid-Autumn, and double days."""
    weight = 1.0 + 0.35 * (day - FIRST_DAY).days / 365
    if day.weekday() >= 5:
        weight *= 1.25
    for new_year in LUNAR_NEW_YEARS:
        ahead = (new_year - day).days
        if 1 <= ahead <= 21:
            weight *= 1.9
        elif -4 <= ahead <= 0:
            weight *= 0.25  # shops are shut and families are at home
    if any(0 <= (feast - day).days <= 14 for feast in MID_AUTUMNS):
        weight *= 1.4
    if (day.month, day.day) in DOUBLE_DAYS:
        weight *= 3.0
    return weight * (1.2 if day.month == 12 else 1.0)


def appeal(product: Product, day: date) -> float:
    """The chance that a picked product goes into the basket; 1.0 only for goods in season."""
    if "trung thu" in product.name_vi:
        return 1.0 if any(-1 <= (feast - day).days <= 30 for feast in MID_AUTUMNS) else 0.02
    if "Tết" in product.name_vi:
        return 1.0 if any(0 <= (feast - day).days <= 35 for feast in LUNAR_NEW_YEARS) else 0.03
    if "2026 Planner" in product.name_en:
        return 1.0 if date(2025, 10, 1) <= day <= date(2026, 2, 28) else 0.0
    if "Fan" in product.name_en:
        return 0.9 if 4 <= day.month <= 8 else 0.2
    return 0.3 if product.list_price_vnd > 1_000_000 else 0.6


def write_database(shop: Shop, path: Path) -> None:
    """Write the shop to a new DuckDB file, replacing one already at ``path``.

    Blocks of 16 KiB, the smallest DuckDB offers, keep the file small: each small table's column
    takes at least a block, 256 KiB by default.
    """
    path.unlink(missing_ok=True)
    with duckdb.connect() as connection:
        quoted = str(path).replace("'", "''")
        connection.execute(f"ATTACH '{quoted}' AS shop (BLOCK_SIZE 16384)")
        connection.execute("USE shop")
        connection.execute((HERE / "shop_schema.sql").read_text(encoding="utf-8"))
        for table, rows in shop.tables().items():
            if table in SELF_REFERENCING:
                marks = ", ".join("?" * len(rows[0]))
                connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608
                continue
            columns = [pa.array(column) for column in zip(*rows, strict=True)]
            frame = pa.table(columns, names=[f"c{n}" for n in range(len(columns))])
            connection.register("frame", frame)
            connection.execute(f"INSERT INTO {table} SELECT * FROM frame")  # noqa: S608 - our name
            connection.unregister("frame")
        connection.execute("CHECKPOINT shop")


def content_hash(path: Path) -> str:
    """SHA-256 (hex) of a DuckDB file's columns, comments and rows, whatever its storage version."""
    digest = hashlib.sha256()
    with duckdb.connect(str(path), read_only=True) as connection:
        for part in _content(connection):
            digest.update(json.dumps(part, ensure_ascii=False, default=str).encode() + b"\n")
    return digest.hexdigest()


def _content(connection: duckdb.DuckDBPyConnection) -> Iterator[Row]:
    tables = connection.execute(
        "SELECT table_name, comment FROM duckdb_tables() ORDER BY table_name"
    ).fetchall()
    for name, comment in tables:
        yield name, comment
        yield from connection.execute(
            "SELECT column_name, data_type, comment FROM duckdb_columns()"
            " WHERE table_name = ? ORDER BY column_index",
            [name],
        ).fetchall()
        yield from connection.execute(f'FROM "{name}" ORDER BY ALL').fetchall()


def write_small_csv(shop: Shop, folder: Path) -> None:
    """Write 50 single-line orders, with their customers and products filled up to 50, as CSV."""
    latest = [item for item in reversed(shop.items) if item.line_number == 1][:50]
    orders = [(item, shop.orders[item.order_id - 1]) for item in reversed(latest)]
    buyers = {order.customer_id for _, order in orders}
    goods = {item.product_id for item, _ in orders}
    customers = _filled(buyers, [(c.customer_id, c) for c in shop.customers])
    products = _filled(goods, [(p.product_id, p) for p in shop.products])
    city_names = {row: city[0] for row, city in enumerate(shop.words["cities"], 1)}
    folder.mkdir(parents=True, exist_ok=True)
    _write_csv(
        folder / "customers.csv",
        ("customer_id", "full_name", "city", "registered_on", "loyalty_tier"),
        [
            [c.customer_id, c.full_name, city_names[c.city_id], c.registered_on, c.loyalty_tier]
            for c in customers
        ],
    )
    _write_csv(
        folder / "products.csv",
        ("product_id", "name_vi", "name_en", "list_price_vnd"),
        [(p.product_id, p.name_vi, p.name_en, p.list_price_vnd) for p in products],
    )
    _write_csv(
        folder / "orders.csv",
        ("order_id", "customer_id", "product_id", "quantity", "total_vnd", "ordered_on", "status"),
        [
            [
                o.order_id,
                o.customer_id,
                i.product_id,
                i.quantity,
                i.line_total_vnd,
                o.ordered_at.date(),
                o.status,
            ]
            for i, o in orders
        ],
    )


def _filled(wanted: set[int], rows: Iterable[tuple[int, T]]) -> list[T]:
    """The wanted rows and the first others, 50 in all, in the order given."""
    spare = 50 - len(wanted)
    chosen: list[T] = []
    for key, row in rows:
        if key in wanted:
            chosen.append(row)
        elif spare:
            spare -= 1
            chosen.append(row)
    return chosen


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the database at ``--output`` and the CSV files in ``shop_small`` beside it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=HERE / "shop.duckdb")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args(arguments)
    shop = Shop(options.seed)
    write_database(shop, options.output)
    write_small_csv(shop, options.output.parent / "shop_small")
    rows = sum(map(len, shop.tables().values()))
    print(f"{options.output}: {rows:,} rows, content {content_hash(options.output)}")


if __name__ == "__main__":
    main()
