"""Product feeds: Google Merchant (also in XML) and Shopify, and what their cells say."""
